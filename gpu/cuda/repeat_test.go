package cuda

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// decoded runs sequences of several lengths side by side, one of which ends early, and returns all logits.
func decoded(t *testing.T, d *Device) (all []float64) {
	t.Helper()
	c, err := llama.Shape{Dim: 32, Layers: 2, Heads: 2, KVHeads: 1, FeedForward: 48, Vocab: 60, Context: 48}.Config()
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New(c, d, gpu.BFloat16, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	dec, err := m.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	keep := func(_ int, logits []float64) error { all = append(all, logits...); return nil }
	var seqs []*llama.Sequence
	for _, prompt := range [][]int32{{1, 2, 3}, {4}, {5, 6, 7, 8, 9, 10, 11, 12, 13}} {
		s, err := dec.Open(40)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Feed(prompt, false, keep); err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, s)
	}
	for i := range int32(6) {
		ids := []int32{i, 20 + i, 59 - i}
		if i == 4 {
			seqs = seqs[1:]
		}
		if err := dec.Step(seqs, ids[:len(seqs)], keep); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Decoding by graphs has the bits of launches one by one; of steps with the same sequences the second is captured and the later ones
// only replayed, though each has other tokens, positions and lengths.
func TestDecodingByGraphsHasTheSameBits(t *testing.T) {
	t.Parallel()
	one := openEmulated(t, 1)
	one.SetGraphs(false)
	want := decoded(t, one)
	if one.repeats != nil {
		t.Error("graphs are used though they were turned off")
	}
	d := openEmulated(t, 2)
	if got := decoded(t, d); !slices.Equal(got, want) {
		t.Error("other logits")
	}
	if d.repeats == nil || d.repeats.broken != nil || d.repeats.replays != 3+1 { // of four and of two steps, the first of each as it comes
		t.Errorf("the recorder is %+v", d.repeats)
	}
	if e, ok := d.m.(emulated); ok && e.tape.captures != 2 {
		t.Errorf("%d graphs were made", e.tape.captures)
	}
}

// A driver that makes no graph costs speed, and is asked once.
func TestWithoutGraphsDecodingGoesOn(t *testing.T) {
	t.Parallel()
	one := openEmulated(t, 1)
	one.SetGraphs(false)
	want := decoded(t, one)
	d := openEmulated(t, 2)
	e, ok := d.m.(emulated)
	if !ok {
		t.Skip("a card does not refuse on demand")
	}
	e.tape.refuse = errors.New("no graphs today")
	if got := decoded(t, d); !slices.Equal(got, want) {
		t.Error("other logits")
	}
	if d.repeats.broken == nil || d.repeats.replays != 0 || e.tape.captures != 1 {
		t.Errorf("the recorder is %+v after %d captures", d.repeats, e.tape.captures)
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

// What a section does in the midst, from uploads to allocations, takes its place between what it queues.
func TestASectionKeepsTheOrder(t *testing.T) {
	t.Parallel()
	d := openEmulated(t, 5)
	x, err := d.Alloc(8, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	y, err := d.Alloc(8, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 8)
	for i := range 4 {
		d.Repeat(func() {
			d.Zero(y)
			d.Upload(x, []float32{1, 2, 3, 4, 5, 6, 7, 8})
			d.Add(y, x)
			d.Embedding(y.Slice(0, 4), x, []int32{int32(i % 2)}, 4)
			d.Upload(x, make([]float32, 8))
			d.Add(y, x)
			d.Copy(x, y)
			d.Download(got, x)
		})
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		want := []float32{1, 2, 3, 4, 5, 6, 7, 8}
		if i%2 == 1 {
			want = []float32{5, 6, 7, 8, 5, 6, 7, 8}
		}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", i, got, want)
		}
	}
	if n := len(d.repeats.sections); n > 8 {
		t.Errorf("%d sections", n)
	}
	d.Repeat(func() { d.Add(x, y.Slice(0, 3)) }) // a mistake is the operation's
	var op *gpu.OpError
	if err := d.Sync(); !errors.As(err, &op) || op.Op != "Add" {
		t.Errorf("Sync returns %v", err)
	}
}

// Graphs are kept for as many shapes as there is room, the least used given up first.
func TestGraphsAreBounded(t *testing.T) {
	t.Parallel()
	d := openEmulated(t, 6)
	x, err := d.Alloc(100, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for n := range sectionsKept + 5 {
			d.Repeat(func() { d.Zero(x.Slice(0, n+1)) })
		}
	}
	if len(d.repeats.sections) != sectionsKept || d.repeats.replays != 0 {
		t.Errorf("%d sections, %d replays", len(d.repeats.sections), d.repeats.replays)
	}
}

// Greedy continuations are chosen on the card; together with one that is drawn at a temperature, which takes the logits to the host,
// they are the same.
func TestTheCardChoosesWhatTheHostWould(t *testing.T) {
	t.Parallel()
	c, err := llama.Shape{Dim: 32, Layers: 1, Heads: 2, KVHeads: 1, FeedForward: 48, Vocab: 60, Context: 48}.Config()
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New(c, openEmulated(t, 4), gpu.BFloat16, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	greedy := []llama.Request{{Prompt: []int32{1, 2, 3}, MaxNewTokens: 5}, {Prompt: []int32{7}, MaxNewTokens: 4}}
	there, err := m.Generate(t.Context(), greedy)
	if err != nil {
		t.Fatal(err)
	}
	here, err := m.Generate(t.Context(), append(slices.Clone(greedy), llama.Request{Prompt: []int32{9}, MaxNewTokens: 5, Temperature: 1, Seed: 3}))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range there {
		if !slices.Equal(here[i].IDs, want.IDs) || here[i].Finish != want.Finish {
			t.Errorf("prompt %d: %v on the card, %v on the host", i, want.IDs, here[i].IDs)
		}
		for k, p := range want.LogProbs {
			if math.Abs(p-here[i].LogProbs[k]) > 1e-5 {
				t.Errorf("prompt %d, token %d: log-probability %v on the card, %v on the host", i, k, p, here[i].LogProbs[k])
			}
		}
	}
}
