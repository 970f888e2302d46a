package train_test

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// card is the host device as a card would be: transfers happen as late as they may, host memory is other memory, and what is
// allocated is counted.
type card struct {
	gpu.Device
	host    [][2]uintptr // ranges of host memory
	pending [2][]*event  // in, out
	bytes   map[gpu.Buffer]int64
	hosted  map[gpu.Buffer]bool
	live    [2]int64 // device, host
	peak    [2]int64
	info    gpu.Info
	room    int64 // of the device; 0 is endless
	fetched int   // transfers that happened
}

type event struct {
	run  func()
	done chan struct{}
}

func (e *event) Wait() error {
	<-e.done
	return nil
}

func newCard(t testing.TB) *card {
	dev := openHost(t)
	return &card{Device: dev, bytes: map[gpu.Buffer]int64{}, hosted: map[gpu.Buffer]bool{}, info: gpu.Info{Kind: "card", Class: "card"}}
}

func (c *card) Info() gpu.Info { return c.info }

func (c *card) count(b gpu.Buffer, n int, t gpu.DType, host bool) {
	at := 0
	if host {
		at = 1
	}
	c.bytes[b], c.hosted[b] = int64(n)*int64(t.Size()), host
	c.live[at] += c.bytes[b]
	c.peak[at] = max(c.peak[at], c.live[at])
}

func (c *card) Alloc(n int, t gpu.DType) (gpu.Buffer, error) {
	if asked := int64(n) * int64(t.Size()); c.room > 0 && c.live[0]+asked > c.room {
		return nil, fmt.Errorf("card: %w: %d bytes asked for, %d free", gpu.ErrOutOfMemory, asked, c.room-c.live[0])
	}
	b, err := c.Device.Alloc(n, t)
	if err == nil {
		c.count(b, n, t, false)
	}
	return b, err
}

func (c *card) AllocHost(n int, t gpu.DType) (gpu.HostBuffer, error) {
	b, err := c.Device.AllocHost(n, t)
	if err == nil {
		c.count(b, n, t, true)
		from := uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes())))
		c.host = append(c.host, [2]uintptr{from, from + uintptr(len(b.Bytes()))})
	}
	return b, err
}

func (c *card) Free(b gpu.Buffer) {
	at := 0
	if c.hosted[b] {
		at = 1
	}
	c.live[at] -= c.bytes[b]
	delete(c.bytes, b)
	c.Device.Free(b)
}

func (c *card) Transfer(dst, src gpu.Buffer) gpu.Event {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(dst.(gpu.HostBuffer).Bytes())))
	lane := 0
	if slices.ContainsFunc(c.host, func(r [2]uintptr) bool { return at >= r[0] && at < r[1] }) {
		lane = 1
	}
	e := &event{func() { c.Device.Transfer(dst, src); c.fetched++ }, make(chan struct{})}
	c.pending[lane] = append(c.pending[lane], e)
	return e
}

func (c *card) Await(x gpu.Event) {
	for lane, all := range c.pending {
		n := slices.IndexFunc(all, func(e *event) bool { return gpu.Event(e) == x }) + 1
		for _, e := range all[:n] {
			e.run()
			close(e.done)
		}
		c.pending[lane] = all[n:]
	}
}

func (c *card) Sync() error {
	for _, all := range c.pending {
		if len(all) > 0 {
			c.Await(all[len(all)-1])
		}
	}
	return c.Device.Sync()
}

func (c *card) Download(dst []float32, src gpu.Buffer)   { c.Sync(); c.Device.Download(dst, src) }
func (c *card) Download64(dst []float64, src gpu.Buffer) { c.Sync(); c.Device.Download64(dst, src) }
func (c *card) Upload(dst gpu.Buffer, src []float32)     { c.Sync(); c.Device.Upload(dst, src) }
func (c *card) Upload64(dst gpu.Buffer, src []float64)   { c.Sync(); c.Device.Upload64(dst, src) }

// deep has enough layers for places on the device to be used in turn.
var deep = llama.Shape{Dim: 32, Layers: 5, Heads: 4, KVHeads: 2, FeedForward: 40, Vocab: 40, Context: 64}

func deepTrainer(t testing.TB, dev gpu.Device, o train.Options) *train.Trainer {
	t.Helper()
	c, err := deep.Config()
	if err != nil {
		t.Fatal(err)
	}
	dtype, err := train.ParseDType(o.DType)
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New(c, dev, dtype, 5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	tr, err := train.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// modes are all ways to place training memory.
func modes() (all []train.Options) {
	for _, states := range []train.States{train.StatesF32, train.States8Bit} {
		for _, r := range []train.Recompute{train.RecomputeNone, train.RecomputeSelective, train.RecomputeLayer} {
			for _, o := range []train.Offload{"none", "activations", "optimizer", "gradients", "activations,optimizer", "gradients,optimizer", "activations,gradients,optimizer"} {
				x := tinyOptions(4)
				x.States, x.Recompute, x.Offload = states, r, o
				all = append(all, x)
			}
		}
	}
	return all
}

func modeName(o train.Options) string {
	return fmt.Sprintf("recompute %s, offload %s, states %s", o.Recompute, o.Offload, o.States)
}

// Whatever is recomputed or lies in host memory, a run has the same bits, with transfers as late as a card may make them.
func TestWhereMemoryLiesDoesNotShow(t *testing.T) {
	defer train.SetChunk(1024)()
	want := map[train.States][]float64{}
	history := map[train.States][]train.Metrics{}
	for _, o := range modes() {
		c := newCard(t)
		tr := deepTrainer(t, c, o)
		src, err := train.Cycle(tinyPacks(7), 3)
		if err != nil {
			t.Fatal(err)
		}
		saved := 0
		dir := t.TempDir()
		err = tr.Run(bg, src, train.LoopOptions{EvalEvery: 2, Held: tinyPacks(2), CheckpointEvery: 1, Checkpoint: func(s *train.State) error {
			saved++
			return s.WriteTo(filepath.Join(dir, fmt.Sprint(saved)))
		}})
		if err != nil {
			t.Fatalf("%s: %v", modeName(o), err)
		}
		got := weights(t, tr)
		if want[o.States] == nil {
			want[o.States], history[o.States] = got, tr.History()
		}
		if !slices.Equal(want[o.States], got) {
			t.Errorf("%s: other weights", modeName(o))
		}
		if diff := cmp.Diff(history[o.States], tr.History(), timing); diff != "" {
			t.Errorf("%s: %s", modeName(o), diff)
		}
		if o.Offload != "none" && c.fetched == 0 {
			t.Errorf("%s: nothing was transferred", modeName(o))
		}
	}
	if slices.Equal(want[train.StatesF32], want[train.States8Bit]) {
		t.Error("moments of eight bits give the same weights: they are not used")
	}
}

// The plan is the sum of what a trainer takes, in every mode. It differs by what a model of five layers has in no proportion to
// a real one: nothing is left out, so the tolerance is 1 %.
func TestThePlanIsWhatIsAllocated(t *testing.T) {
	defer train.SetChunk(1024)()
	const tolerance = 0.01
	cfg, err := deep.Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range modes() {
		c := newCard(t)
		tr := deepTrainer(t, c, o)
		pack := tinyPacks(1)[0]
		n, longest := len(pack.InputIDs), 0
		for i := range pack.Sequences() {
			longest = max(longest, int(pack.CuSeqlens[i+1]-pack.CuSeqlens[i]))
		}
		if _, err := tr.Step(bg, tinyPacks(1)); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Evaluate(bg, tinyPacks(1)); err != nil { // in the same memory
			t.Fatal(err)
		}
		s, err := tr.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
		m, err := train.EstimateMemory(cfg, o, train.Load{Tokens: n, Longest: longest}, c.info)
		if err != nil {
			t.Fatal(err)
		}
		for i, planned := range []int64{m.Total, m.HostTotal} {
			if taken := c.peak[i]; math.Abs(float64(taken-planned)) > tolerance*float64(planned) {
				t.Errorf("%s: planned %d, taken %d (host memory: %v)", modeName(o), planned, taken, i == 1)
			}
		}
	}
}

// llama2 is the shape of Llama-2-7B, or of 13B.
func llama2(t *testing.T, big bool) *llama.Config {
	t.Helper()
	s := llama.Shape{Dim: 4096, Layers: 32, Heads: 32, KVHeads: 32, FeedForward: 11008, Vocab: 32000, Context: 65536}
	if big {
		s.Dim, s.Layers, s.Heads, s.KVHeads, s.FeedForward = 5120, 40, 40, 40, 13824
	}
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An H100 has 80 GB, of which a driver leaves 78.6 GiB, less 0.5 of operations; its machine has 128 GiB.
var h100 = gpu.Info{Kind: "cuda", Memory: 78 << 30, HostMemory: 128 << 30}

func TestLlama2FitsOneCardAt64kTokens(t *testing.T) {
	for name, tt := range map[string]struct {
		big    bool
		states train.States
		memory gpu.Info
		fits   bool
	}{
		"7B with float32 states":        {false, train.StatesF32, h100, true},
		"7B with states of eight bits":  {false, train.States8Bit, h100, true},
		"13B with states of eight bits": {true, train.States8Bit, h100, true},
		"13B with float32 states":       {true, train.StatesF32, h100, false},
		"7B with what 128 GiB leave":    {false, train.StatesF32, gpu.Info{Kind: "cuda", Memory: 78 << 30, HostMemory: 124 << 30}, true},
		"13B with what 128 GiB leave":   {true, train.States8Bit, gpu.Info{Kind: "cuda", Memory: 78 << 30, HostMemory: 124 << 30}, false},
		"7B with half the host memory":  {false, train.StatesF32, gpu.Info{Kind: "cuda", Memory: 78 << 30, HostMemory: 64 << 30}, false},
		"7B on a card of 40 GB":         {false, train.StatesF32, gpu.Info{Kind: "cuda", Memory: 38 << 30, HostMemory: 128 << 30}, true},
		"7B on a card of 24 GB":         {false, train.StatesF32, gpu.Info{Kind: "cuda", Memory: 23 << 30, HostMemory: 512 << 30}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := train.DefaultOptions()
			o.Steps, o.DType, o.States = 100, "bf16", tt.states
			m, err := train.PlanMemory(llama2(t, tt.big), o, train.Load{Tokens: 65536, MicroBatches: 8}, tt.memory)
			t.Logf("%v; %.2f of the time without", m, m.RelativeTime)
			var me *train.MemoryError
			switch {
			case tt.fits && err != nil:
				t.Fatal(err)
			case !tt.fits && (!errors.As(err, &me) || len(me.Advices) == 0):
				t.Fatalf("got %v, want a *MemoryError with advice", err)
			case !tt.fits:
				t.Log(err)
			case m.Total > tt.memory.Memory || m.HostTotal > tt.memory.HostMemory-4<<30:
				t.Errorf("the plan does not fit: %+v", m)
			}
		})
	}
}

func TestThePlanTakesTheFastestModeThatFits(t *testing.T) {
	c := llama2(t, false)
	o := train.DefaultOptions()
	o.Steps, o.DType = 100, "bf16"
	for name, tt := range map[string]struct {
		memory    int64
		recompute train.Recompute
		offload   train.Offload
		tokens    int
	}{
		"with plenty nothing is computed again": {400 << 30, train.RecomputeNone, train.OffloadNone, 65536},
		"on one card the optimizer leaves":      {78 << 30, train.RecomputeSelective, "activations,optimizer", 65536},
		"a short micro-batch keeps everything":  {78 << 30, train.RecomputeNone, "optimizer", 4096},
	} {
		info := h100
		info.Memory, info.HostMemory = tt.memory, max(128<<30, tt.memory)
		m, err := train.PlanMemory(c, o, train.Load{Tokens: tt.tokens, MicroBatches: 8}, info)
		if err != nil || m.Recompute != tt.recompute || m.Offload != tt.offload {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	asked := o
	asked.Recompute, asked.Offload = train.RecomputeLayer, "gradients,optimizer"
	if m, err := train.PlanMemory(c, asked, train.Load{Tokens: 4096}, h100); err != nil || m.Recompute != train.RecomputeLayer || m.Offload != "gradients,optimizer" {
		t.Errorf("the mode that was asked for is not taken: %v, %v", m, err)
	}
}

func TestARunThatDoesNotFitIsRefusedWithAdvice(t *testing.T) {
	c, err := llama.Shape{Dim: 256, Layers: 8, Heads: 4, KVHeads: 2, FeedForward: 688, Vocab: 4096, Context: 8192, Tied: true}.Config()
	if err != nil {
		t.Fatal(err)
	}
	o := tinyOptions(4)
	o.Recompute, o.Offload = train.RecomputeNone, train.OffloadNone
	full, err := train.EstimateMemory(c, o, train.Load{Tokens: 8192}, gpu.Info{Kind: "host"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		memory int64
		advice string
	}{
		"enough":                          {full.Total, ""},
		"with recomputation":              {full.Total * 2 / 3, "set recompute: selective and offload: none"},
		"with smaller micro-batches":      {full.Total - full.Activations/2, "micro-batches of at most 4096 tokens"},
		"not even the optimizer's states": {full.Optimizer / 2, "smaller model"},
	} {
		_, err := train.PlanMemory(c, o, train.Load{Tokens: 8192}, gpu.Info{Kind: "host", Memory: tt.memory})
		var me *train.MemoryError
		if tt.advice == "" && err != nil || tt.advice != "" && (!errors.As(err, &me) || !strings.Contains(err.Error(), tt.advice)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.advice)
		}
	}
}

// Where the card has room and the host has not, a larger card is no advice.
func TestARunThatLacksHostMemoryIsToldHowMuch(t *testing.T) {
	o := train.DefaultOptions()
	o.Steps, o.DType = 100, "bf16"
	info := h100
	info.HostMemory = 22 << 30
	load := train.Load{Tokens: 65536}
	_, err := train.PlanMemory(llama2(t, false), o, load, info)
	var me *train.MemoryError
	if !errors.As(err, &me) {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`use a machine that can give (\d+)\.\d GiB of host memory \(recompute: \w+, offload: [\w,]+\)`).FindStringSubmatch(err.Error())
	if said == nil {
		t.Fatal(err)
	}
	enough, err := strconv.ParseInt(said[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for more, fits := range map[int64]bool{-1: false, 1: true} {
		info.HostMemory = (enough + more) << 30
		if m, err := train.PlanMemory(llama2(t, false), o, load, info); (err == nil) != fits {
			t.Errorf("with %d GiB: %v, %v", enough+more, m, err)
		}
	}
}

// A card that has less than it says sends the trainer to the next mode, and leaves nothing behind of those that failed.
func TestMemoryThatRunsOutAllTheSameIsGoneAround(t *testing.T) {
	defer train.SetChunk(1024)()
	cfg, err := deep.Config()
	if err != nil {
		t.Fatal(err)
	}
	o := tinyOptions(4)
	load := train.Load{Tokens: 64}
	c := newCard(t)
	least := tinyOptions(4)
	least.Recompute, least.Offload = train.RecomputeLayer, "activations,gradients,optimizer"
	m, err := train.EstimateMemory(cfg, least, load, c.info)
	if err != nil {
		t.Fatal(err)
	}
	c.info.HostMemory = 64 << 30
	c.room = m.Total + m.Total/8
	model, err := llama.New(cfg, c, gpu.Float32, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	tr, got, err := train.Fit(model, o, load)
	if err != nil {
		t.Fatal(err)
	}
	if got.Offload == train.OffloadNone || got.Total > c.room {
		t.Errorf("the mode is %v", got)
	}
	if math.Abs(float64(c.live[0]+got.Activations/100-got.Total)) > 0.1*float64(got.Total) {
		t.Errorf("%d bytes are taken, planned were %d", c.live[0], got.Total)
	}
	if _, err := tr.Step(bg, tinyPacks(2)); err != nil {
		t.Fatal(err)
	}
	tr.Close()
	model.DisableTraining()

	c.room = c.live[0] + 1000
	if _, _, err := train.Fit(model, o, load); !errors.Is(err, gpu.ErrOutOfMemory) {
		t.Errorf("got %v", err)
	}
	if c.live[0] > c.room-1000 || c.live[1] != 0 {
		t.Errorf("%v bytes are left behind", c.live)
	}
}

// Moments of eight bits follow those of float32: over 150 steps of a small model the loss stays within 2 % of the other run's, and falls
// as far within 3 %.
func TestEightBitMomentsTrainAsFloat32OnesDo(t *testing.T) {
	run := func(states train.States) []train.Metrics {
		o := tinyOptions(150)
		o.States, o.LR = states, 2e-3
		tr := tinyTrainer(t, o)
		if err := tr.Run(bg, tinySource(t), train.LoopOptions{}); err != nil {
			t.Fatal(err)
		}
		return tr.History()
	}
	want, got := run(train.StatesF32), run(train.States8Bit)
	worst := 0.
	for i := range want {
		worst = max(worst, math.Abs(got[i].Loss-want[i].Loss)/want[0].Loss)
	}
	last := len(want) - 1
	t.Logf("loss from %.3f to %.3f, with eight bits to %.3f; at most %.2f %% of the first loss apart", want[0].Loss, want[last].Loss, got[last].Loss, 100*worst)
	if worst > 0.02 {
		t.Errorf("losses are up to %.1f %% of the first apart", 100*worst)
	}
	if fell, falls := want[0].Loss-want[last].Loss, got[0].Loss-got[last].Loss; math.Abs(fell-falls) > 0.03*fell || fell < 0.5 {
		t.Errorf("the loss falls by %g, with eight bits by %g", fell, falls)
	}
}

// Resuming has the same bits in every mode, also from one mode into another.
func TestResumingInAnotherModeGivesTheSameBits(t *testing.T) {
	defer train.SetChunk(1024)()
	for _, states := range []train.States{train.StatesF32, train.States8Bit} {
		o := tinyOptions(6)
		o.States, o.Recompute, o.Offload = states, train.RecomputeNone, train.OffloadNone
		whole := deepTrainer(t, newCard(t), o)
		if err := whole.Run(bg, tinySource(t), train.LoopOptions{}); err != nil {
			t.Fatal(err)
		}
		first := o
		first.Offload, first.Recompute = "activations,gradients,optimizer", train.RecomputeSelective
		a := deepTrainer(t, newCard(t), first)
		store := train.Checkpoints{Dir: t.TempDir(), Keep: 1}
		if err := a.Run(bg, tinySource(t), train.LoopOptions{StopAfter: 3, CheckpointEvery: 1, Checkpoint: store.Save}); err != nil {
			t.Fatal(err)
		}
		for _, offload := range []train.Offload{"none", "optimizer", "gradients"} {
			s, err := store.Latest(nil)
			if err != nil || s == nil || s.Step != 3 {
				t.Fatalf("%v, %v", s, err)
			}
			second := o
			second.Offload = offload
			b := deepTrainer(t, newCard(t), second)
			if err := b.Restore(s); err != nil {
				t.Fatal(err)
			}
			s.Release()
			if err := b.Restore(s); err == nil {
				t.Error("a released state was restored")
			}
			if err := b.Run(bg, tinySource(t), train.LoopOptions{}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(weights(t, whole), weights(t, b)) {
				t.Errorf("states %s, resumed with offload %s: other weights", states, offload)
			}
		}
	}
}

// A checkpoint that takes long is of the state it was taken from, while steps go on as far as they may.
func TestASlowCheckpointHoldsTheStateOfItsStep(t *testing.T) {
	defer train.SetChunk(1024)()
	for _, offload := range []train.Offload{"none", "optimizer"} {
		o := tinyOptions(5)
		o.Offload = offload
		fast, slow := t.TempDir(), t.TempDir()
		for i, dir := range []string{fast, slow} {
			tr := deepTrainer(t, newCard(t), o)
			var once sync.Once
			begun := make(chan struct{})
			err := tr.Run(bg, tinySource(t), train.LoopOptions{CheckpointEvery: 2, OnStep: func(m train.Metrics) error {
				if m.Step == 2 {
					once.Do(func() { close(begun) })
				}
				return nil
			}, Checkpoint: func(s *train.State) error {
				if i == 1 && s.Step == 2 && offload == "none" {
					<-begun // the next step was taken meanwhile
				}
				return s.WriteTo(filepath.Join(dir, fmt.Sprint(s.Step)))
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []string{"2", "4", "5"} {
			var digests []string
			for _, dir := range []string{fast, slow} {
				s, err := train.ReadState(filepath.Join(dir, step))
				if err != nil {
					t.Fatal(err)
				}
				digests = append(digests, s.TensorsSHA256)
				s.Release()
			}
			if digests[0] != digests[1] {
				t.Errorf("offload %s: the checkpoint of step %s differs when it takes long", offload, step)
			}
		}
	}
}
