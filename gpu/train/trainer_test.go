package train_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/train"
)

var bg = context.Background()

func tinyOptions(steps int) train.Options {
	o := train.DefaultOptions()
	o.Steps, o.LR, o.WarmupSteps = steps, 5e-3, 2
	return o
}

func tinyTrainer(t testing.TB, o train.Options) *train.Trainer {
	t.Helper()
	dtype, err := train.ParseDType(o.DType)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := train.New(tinyModel(t, openHost(t), dtype), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func tinySource(t testing.TB) train.Source {
	t.Helper()
	src, err := train.Cycle(tinyPacks(7), 2)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// weights returns the bits of a trainer's state.
func weights(t *testing.T, tr *train.Trainer) []float64 {
	t.Helper()
	x := make([]float64, tr.Model().Master().Len())
	tr.Model().Device().Download64(x, tr.Model().Master())
	if err := tr.Model().Device().Sync(); err != nil {
		t.Fatal(err)
	}
	return x
}

// timing differs from run to run.
var timing = cmpopts.IgnoreFields(train.Metrics{}, "Seconds", "TokensPerSecond", "MicroBatchSeconds")

func TestResumingAtAnyStepGivesTheSameBits(t *testing.T) {
	for _, dtype := range []string{"f32", "f64"} {
		o := tinyOptions(6)
		o.DType = dtype
		whole := tinyTrainer(t, o)
		if err := whole.Run(bg, tinySource(t), train.LoopOptions{}); err != nil {
			t.Fatal(err)
		}
		want := weights(t, whole)
		for stop := 1; stop < 6; stop++ {
			first := tinyTrainer(t, o)
			if err := first.Run(bg, tinySource(t), train.LoopOptions{StopAfter: stop}); err != nil {
				t.Fatal(err)
			}
			s, err := first.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "state")
			if err := s.WriteTo(dir); err != nil {
				t.Fatal(err)
			}
			if s, err = train.ReadState(dir); err != nil {
				t.Fatal(err)
			}
			second := tinyTrainer(t, o)
			if err := second.Restore(s); err != nil {
				t.Fatal(err)
			}
			if second.StepsDone() != stop {
				t.Errorf("%d steps done, want %d", second.StepsDone(), stop)
			}
			if err := second.Run(bg, tinySource(t), train.LoopOptions{}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(want, weights(t, second)) {
				t.Errorf("%s: weights differ after stopping at %d", dtype, stop)
			}
			if diff := cmp.Diff(whole.History(), second.History(), timing); diff != "" {
				t.Errorf("metrics: %s", diff)
			}
		}
	}
}

func TestASnapshotIsNotDisturbedByLaterSteps(t *testing.T) {
	tr := tinyTrainer(t, tinyOptions(4))
	if err := tr.Run(bg, tinySource(t), train.LoopOptions{StopAfter: 2}); err != nil {
		t.Fatal(err)
	}
	s, err := tr.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	before := weights(t, tr)
	if err := tr.Run(bg, tinySource(t), train.LoopOptions{}); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(before, weights(t, tr)) {
		t.Fatal("the steps changed nothing")
	}
	if err := tr.Restore(s); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, weights(t, tr)) || tr.StepsDone() != 2 || len(tr.History()) != 2 {
		t.Error("the snapshot is not the state it was taken from")
	}
}

func TestResumingWithAnotherConfigurationIsRefused(t *testing.T) {
	a := tinyTrainer(t, tinyOptions(4))
	a.SetInputs(map[string]string{"packs": "one"})
	if err := a.Run(bg, tinySource(t), train.LoopOptions{StopAfter: 1}); err != nil {
		t.Fatal(err)
	}
	s, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*train.Options)
		inputs string
		field  string
	}{
		"another learning rate": {change: func(o *train.Options) { o.LR = 1 }, field: "lr"},
		"more steps":            {change: func(o *train.Options) { o.Steps = 5 }, field: "steps"},
		"another loss":          {change: func(o *train.Options) { o.Loss = datasets.LossToken }, field: "loss"},
		"another type":          {change: func(o *train.Options) { o.DType = "f64" }, field: "dtype"},
		"other data":            {inputs: "two", field: "packs"},
		"recomputation is fine": {change: func(o *train.Options) { o.Recompute = train.RecomputeLayer }},
	} {
		t.Run(name, func(t *testing.T) {
			o := tinyOptions(4)
			if tt.change != nil {
				tt.change(&o)
			}
			b := tinyTrainer(t, o)
			b.SetInputs(map[string]string{"packs": "one"})
			if tt.inputs != "" {
				b.SetInputs(map[string]string{"packs": tt.inputs})
			}
			before := weights(t, b)
			err := b.Restore(s)
			var re *train.ResumeError
			switch {
			case tt.field == "" && err != nil:
				t.Error(err)
			case tt.field != "" && (!errors.As(err, &re) || re.Field != tt.field):
				t.Errorf("got %v, want a ResumeError about %s", err, tt.field)
			case tt.field != "" && !slices.Equal(before, weights(t, b)):
				t.Error("a refused checkpoint changed the weights")
			}
		})
	}
}

func TestADamagedCheckpointIsPassedOver(t *testing.T) {
	store := train.Checkpoints{Dir: t.TempDir(), Keep: 2}
	tr := tinyTrainer(t, tinyOptions(5))
	if err := tr.Run(bg, tinySource(t), train.LoopOptions{CheckpointEvery: 1, Checkpoint: store.Save}); err != nil {
		t.Fatal(err)
	}
	names := func() (out []string) {
		entries, err := os.ReadDir(store.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	if diff := cmp.Diff([]string{"step-00000004", "step-00000005"}, names()); diff != "" {
		t.Fatal(diff)
	}
	// What kill -9 can leave, and a disk that lies.
	if err := os.Mkdir(filepath.Join(store.Dir, ".partial-step-00000006-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(store.Dir, "step-00000005", "state.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged []error
	s, err := store.Latest(func(err error) { damaged = append(damaged, err) })
	if err != nil || s == nil || s.Step != 4 || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), "corrupt") {
		t.Fatalf("state %v, %v, damaged %v", s, err, damaged)
	}
	again := tinyTrainer(t, tinyOptions(5))
	if err := again.Restore(s); err != nil {
		t.Fatal(err)
	}
	if err := again.Run(bg, tinySource(t), train.LoopOptions{Checkpoint: store.Save}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(weights(t, tr), weights(t, again)) {
		t.Error("the repaired run ended elsewhere")
	}
	if diff := cmp.Diff([]string{"step-00000004", "step-00000005"}, names()); diff != "" {
		t.Error(diff)
	}
	if s, err := (train.Checkpoints{Dir: filepath.Join(store.Dir, "none")}).Latest(nil); s != nil || err != nil {
		t.Errorf("an absent directory: %v, %v", s, err)
	}
}

func TestCancellationKeepsWholeSteps(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	tr := tinyTrainer(t, tinyOptions(6))
	var saved []int
	err := tr.Run(ctx, tinySource(t), train.LoopOptions{
		OnStep: func(m train.Metrics) error {
			if m.Step == 2 {
				cancel()
			}
			return nil
		},
		Checkpoint: func(s *train.State) error { saved = append(saved, s.Step); return nil },
	})
	if !errors.Is(err, context.Canceled) || tr.StepsDone() != 3 || !slices.Equal(saved, []int{3}) {
		t.Errorf("%v after %d steps, saved %v", err, tr.StepsDone(), saved)
	}
}

func TestAFailedCheckpointEndsTheRun(t *testing.T) {
	full := errors.New("disk full")
	tr := tinyTrainer(t, tinyOptions(6))
	err := tr.Run(bg, tinySource(t), train.LoopOptions{CheckpointEvery: 2, Checkpoint: func(*train.State) error { return full }})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestADivergedStepIsNotTaken(t *testing.T) {
	for name, spoil := range map[string]func(*train.Trainer, *datasets.Pack){
		"NaN in a weight that one sequence reads": func(tr *train.Trainer, p *datasets.Pack) {
			d := tr.Model().Config().Hidden
			row := make([]float32, d)
			row[0] = float32(math.NaN())
			tr.Model().Device().Upload(tr.Model().Params()[0].Weight.Slice(39*d, 40*d), row)
		},
		"an exploding loss": func(tr *train.Trainer, _ *datasets.Pack) {
			w := tr.Model().Params()[0].Weight
			x := make([]float32, w.Len())
			for i := range x {
				x[i] = float32(i%17) * 1e4
			}
			tr.Model().Device().Upload(w, x)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tinyTrainer(t, tinyOptions(4))
			packs := tinyPacks(2)
			spoil(tr, &packs[0])
			before := weights(t, tr)
			_, err := tr.Step(bg, packs)
			var de *train.DivergedError
			if !errors.As(err, &de) || de.Step != 0 || len(de.Sequences) == 0 {
				t.Fatalf("got %v", err)
			}
			after := weights(t, tr)
			for i := range before {
				if math.Float64bits(before[i]) != math.Float64bits(after[i]) {
					t.Fatal("the step changed the weights")
				}
			}
			if tr.StepsDone() != 0 {
				t.Error("the step counts as taken")
			}
		})
	}
}

func TestDivergenceNamesThePlansSequences(t *testing.T) {
	o := tinyOptions(4)
	o.MaxLoss = 0.01
	tr := tinyTrainer(t, o)
	err := tr.Run(bg, train.SourceFunc(func(int) (train.Batch, error) {
		return train.Batch{MicroBatches: tinyPacks(1), Sequences: [][]int32{{812, 7, 31}}}, nil
	}), train.LoopOptions{})
	var de *train.DivergedError
	if !errors.As(err, &de) || !slices.Equal(de.Sequences, []string{"812", "7", "31"}) {
		t.Errorf("got %v", err)
	}
}

func TestTheLossDoesNotDependOnTheLayout(t *testing.T) {
	for _, loss := range []datasets.Loss{datasets.LossLongAlign, datasets.LossToken, datasets.LossPack} {
		for _, dtype := range []string{"f32", "f64"} {
			o := tinyOptions(4)
			o.Loss, o.DType = loss, dtype
			tr := tinyTrainer(t, o)
			before := weights(t, tr)
			c, err := tr.Parity(bg, tinyPacks(5), train.ParityOptions{Tokens: 120})
			if err != nil {
				t.Fatalf("%s, %s: %v", loss, dtype, err)
			}
			if !c.Holds || c.Sequences < 8 || c.Cut != 0 || len(c.Layouts) != 6 {
				t.Errorf("%s, %s: %+v", loss, dtype, c)
			}
			if !slices.Equal(before, weights(t, tr)) || tr.StepsDone() != 0 {
				t.Error("the check changed the state")
			}
		}
	}
}

func TestMalformedStepsAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*datasets.Pack){
		"boundaries that fall":            func(p *datasets.Pack) { p.CuSeqlens[1] = 100 },
		"boundaries that end elsewhere":   func(p *datasets.Pack) { p.CuSeqlens[len(p.CuSeqlens)-1]++ },
		"an ID outside the vocabulary":    func(p *datasets.Pack) { p.InputIDs[3] = 40 },
		"a label outside the vocabulary":  func(p *datasets.Pack) { p.Labels[3] = 1000 },
		"fewer labels than tokens":        func(p *datasets.Pack) { p.Labels = p.Labels[1:] },
		"a weight that is not a number":   func(p *datasets.Pack) { p.Weights[0] = math.NaN() },
		"a sequence beyond the context":   func(p *datasets.Pack) { *p = datasets.Pack{InputIDs: make([]int32, 65), CuSeqlens: []int32{0, 65}} },
		"no sequence at all":              func(p *datasets.Pack) { *p = datasets.Pack{} },
		"boundaries that overflow labels": func(p *datasets.Pack) { p.CuSeqlens = []int32{0, 1 << 30, int32(len(p.InputIDs))} },
	} {
		for _, objective := range []train.Objective{train.SFT, train.Pretrain} {
			t.Run(name+", "+string(objective), func(t *testing.T) {
				o := tinyOptions(4)
				o.Objective = objective
				tr := tinyTrainer(t, o)
				p := tinyPacks(1)
				spoil(&p[0])
				if _, err := tr.Step(bg, p); err == nil && !(objective == train.Pretrain && strings.Contains(name, "label outside")) {
					t.Error("no error")
				}
				if _, err := tr.Evaluate(bg, p); err == nil && objective == train.SFT {
					t.Error("no error from Evaluate")
				}
			})
		}
	}
}

func TestPretrainingTakesEveryTokenButPadding(t *testing.T) {
	o := tinyOptions(4)
	o.Objective = train.Pretrain
	tr := tinyTrainer(t, o)
	ig := int32(datasets.IgnoreIndex)
	m, err := tr.Gradient(bg, []datasets.Pack{{
		InputIDs: []int32{5, 6, 7, 0, 0, 8, 9, 10, 11, 0}, Labels: []int32{ig, 6, 7, ig, ig, ig, ig, 10, 11, ig}, CuSeqlens: []int32{0, 5, 10},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Targets != 2+3 || m.Tokens != 10 || m.Sequences != 2 {
		t.Errorf("%+v", m)
	}
}

func TestHeldOutLossIsThatOfTheObjective(t *testing.T) {
	tr := tinyTrainer(t, tinyOptions(4))
	packs := tinyPacks(3)
	m, err := tr.Gradient(bg, packs)
	if err != nil {
		t.Fatal(err)
	}
	held, err := tr.Evaluate(bg, packs)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(held-m.Loss) > 1e-6 {
		t.Errorf("held-out %v, training %v on the same data", held, m.Loss)
	}
	var lines []train.Metrics
	signs, through := 0, 0
	err = tr.Run(bg, tinySource(t), train.LoopOptions{
		EvalEvery: 2, Held: packs, OnMicroBatch: func() { signs++ },
		OnStep: func(m train.Metrics) error { lines, through = append(lines, m), through+m.MicroBatches; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := through + 2*len(packs); signs != want {
		t.Errorf("%d signs of life, %d micro-batches went through the model", signs, want)
	}
	for i, m := range lines {
		if (m.EvalLoss != nil) != (i == 1 || i == 3) {
			t.Errorf("step %d: held-out loss %v", i, m.EvalLoss)
		}
	}
}

func TestSchedulesAreHuggingFaces(t *testing.T) {
	for name, tt := range map[string]struct {
		schedule train.Schedule
		want     []float64
	}{
		"cosine":   {train.Cosine, []float64{0, 0.5, 1, 1 - 0.9*(1-math.Cos(math.Pi/4))/2, 0.55, 1 - 0.9*(1-math.Cos(3*math.Pi/4))/2, 0.1}},
		"linear":   {train.Linear, []float64{0, 0.5, 1, 0.775, 0.55, 0.325, 0.1}},
		"constant": {train.Constant, []float64{0, 0.5, 1, 1, 1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			o := tinyOptions(6)
			o.LR, o.MinLR, o.Schedule = 1, 0.1, tt.schedule
			var got []float64
			for step := range tt.want {
				got = append(got, o.LRAt(step))
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(0, 1e-15)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for steps, want := range map[int]int{1: 1, 33: 1, 34: 2, 100: 3, 101: 4} {
		o := train.DefaultOptions()
		o.Steps = steps
		if got := o.Warmup(); got != want {
			t.Errorf("%d steps warm up over %d, want %d", steps, got, want)
		}
	}
}

func TestOptionsThatCannotWorkAreNamed(t *testing.T) {
	for option, change := range map[string]func(*train.Options){
		"steps":            func(o *train.Options) { o.Steps = 0 },
		"lr":               func(o *train.Options) { o.LR = math.NaN() },
		"min_lr":           func(o *train.Options) { o.MinLR = 1 },
		"warmup_steps":     func(o *train.Options) { o.WarmupSteps = 99 },
		"warmup_ratio":     func(o *train.Options) { o.WarmupRatio = 2 },
		"schedule":         func(o *train.Options) { o.Schedule = "zigzag" },
		"beta1":            func(o *train.Options) { o.Beta1 = 1 },
		"beta2":            func(o *train.Options) { o.Beta2 = -1 },
		"eps":              func(o *train.Options) { o.Eps = 0 },
		"weight_decay":     func(o *train.Options) { o.WeightDecay = -1 },
		"clip":             func(o *train.Options) { o.Clip = math.Inf(1) },
		"loss":             func(o *train.Options) { o.Loss = "mean" },
		"objective":        func(o *train.Options) { o.Objective = "rl" },
		"dtype":            func(o *train.Options) { o.DType = "f8" },
		"device":           func(o *train.Options) { o.Device = "tpu" },
		"recompute":        func(o *train.Options) { o.Recompute = "all" },
		"offload":          func(o *train.Options) { o.Offload = "activations,weights" },
		"optimizer_states": func(o *train.Options) { o.States = "4bit" },
		"max_loss":         func(o *train.Options) { o.MaxLoss = -1 },
	} {
		o := tinyOptions(4)
		change(&o)
		var oe *train.OptionError
		if err := o.Validate(); !errors.As(err, &oe) || oe.Option != option {
			t.Errorf("%s: got %v", option, err)
		}
	}
	if err := tinyOptions(4).Validate(); err != nil {
		t.Error(err)
	}
}

// TestOnlyAttentionGrowsWithLength: with equally many tokens, the matrices, norms and elementwise parts do the same work
// whatever the lengths; attention does work in proportion to Σ n(n+1)/2.
func TestOnlyAttentionGrowsWithLength(t *testing.T) {
	work := func(lengths ...int) (linear, attention float64) {
		tr := tinyTrainer(t, tinyOptions(4))
		p := datasets.Pack{CuSeqlens: []int32{0}}
		for _, n := range lengths {
			for range n {
				p.InputIDs = append(p.InputIDs, int32(len(p.InputIDs)%40))
			}
			p.CuSeqlens = append(p.CuSeqlens, int32(len(p.InputIDs)))
		}
		profiler, ok := tr.Model().Device().(gpu.Profiler)
		if !ok {
			t.Skip("the device does not profile")
		}
		profiler.StartProfile()
		if _, err := tr.Gradient(bg, []datasets.Pack{p}); err != nil {
			t.Fatal(err)
		}
		for _, s := range profiler.StopProfile() {
			switch {
			case strings.HasPrefix(s.Op, "Attention"):
				attention += s.FLOPs
			case s.Op != "CrossEntropy": // its targets are one fewer a sequence
				linear += s.FLOPs
			}
		}
		return linear, attention
	}
	shortLinear, shortAttention := work(8, 8, 8, 8, 8, 8, 8, 8)
	longLinear, longAttention := work(64)
	if shortLinear != longLinear || shortLinear == 0 {
		t.Errorf("linear parts: %v for short sequences, %v for a long one", shortLinear, longLinear)
	}
	if got, want := longAttention/shortAttention, float64(64*65)/float64(8*8*9); math.Abs(got-want) > 1e-9 {
		t.Errorf("attention grows by %v, Σ n(n+1)/2 by %v", got, want)
	}
}

func TestAHeldOutLossThatWasInterruptedIsMadeUpFor(t *testing.T) {
	packs := tinyPacks(3)
	for name, steps := range map[string]int{"in the middle": 4, "after the last step": 2} {
		t.Run(name, func(t *testing.T) {
			lo := train.LoopOptions{EvalEvery: 2, Held: packs}
			whole := tinyTrainer(t, tinyOptions(steps))
			if err := whole.Run(bg, tinySource(t), lo); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(bg)
			src := tinySource(t)
			interrupted := train.SourceFunc(func(step int) (train.Batch, error) {
				if step == 1 {
					cancel() // the step is taken, its held-out loss is not measured
				}
				return src.Batch(step)
			})
			first := tinyTrainer(t, tinyOptions(steps))
			if err := first.Run(ctx, interrupted, lo); !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v", err)
			}
			if h := first.History(); len(h) != 2 || h[1].EvalLoss != nil {
				t.Fatalf("the interrupted run has %+v", h)
			}
			s, err := first.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			second := tinyTrainer(t, tinyOptions(steps))
			if err := second.Restore(s); err != nil {
				t.Fatal(err)
			}
			if err := second.Run(bg, src, lo); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(whole.History(), second.History(), timing); diff != "" {
				t.Errorf("metrics (-uninterrupted +resumed):\n%s", diff)
			}
		})
	}
}
