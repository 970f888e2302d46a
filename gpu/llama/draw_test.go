package llama

import (
	"math"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// Drawing on the device greedily follows Step's logits, over more sequences than fit one block of logits.
func TestDrawTakesTheLikeliestTokenOfStep(t *testing.T) {
	dev, err := host.Open(host.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	c, err := Shape{Dim: 32, Layers: 2, Heads: 2, KVHeads: 1, FeedForward: 48, Vocab: 60, Context: 32}.Config()
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(c, dev, gpu.Float32, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d, err := m.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const n = logitRows + 3
	var a, b []*Sequence
	ids, draws := make([]int32, n), make([]gpu.Draw, n)
	for i := range n {
		for _, to := range []*[]*Sequence{&a, &b} {
			s, err := d.Open(8)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			*to = append(*to, s)
		}
		ids[i] = int32(i % 60)
	}
	next, logProbs, err := d.Draw(a, ids, draws)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Step(b, ids, func(i int, logits []float64) error {
		want, p := NewSampler(0, 0, 1).Next(logits)
		if next[i] != want || math.Abs(logProbs[i]-p) > 1e-5 {
			t.Errorf("sequence %d: drew %d with %g, want %d with %g", i, next[i], logProbs[i], want, p)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Draw(a, ids[:1], draws); err == nil {
		t.Error("lengths that differ are accepted")
	}
}
