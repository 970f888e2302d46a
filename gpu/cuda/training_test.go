package cuda

import (
	"context"
	"math"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// pack makes sequences of the given lengths by arithmetic; the first third of each has no targets.
func pack(lengths ...int) datasets.Pack {
	p := datasets.Pack{CuSeqlens: []int32{0}}
	x := uint32(99)
	for _, n := range lengths {
		for s := range n {
			x = x*1664525 + 1013904223
			id := int32(x>>8) % 50
			p.InputIDs = append(p.InputIDs, id)
			if s < n/3 {
				id = datasets.IgnoreIndex
			}
			p.Labels = append(p.Labels, id)
		}
		p.CuSeqlens = append(p.CuSeqlens, int32(len(p.InputIDs)))
		p.Weights = append(p.Weights, 1)
	}
	return p
}

// Whole training steps on the emulator follow the host's float32: heads of 64 go by the matrix units in bfloat16, of each kind of card.
func TestTrainingFollowsTheHost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the emulator takes some seconds")
	}
	shape := llama.Shape{Dim: 128, Layers: 2, Heads: 2, KVHeads: 1, FeedForward: 80, Vocab: 50, Context: 128}
	packs := []datasets.Pack{pack(70, 9, 30)}
	run := func(dev gpu.Device, dtype string) (all []train.Metrics) {
		c, err := shape.Config()
		if err != nil {
			t.Fatal(err)
		}
		o := train.DefaultOptions()
		o.Steps, o.LR, o.WarmupSteps, o.DType = 3, 5e-3, 1, dtype
		d, err := train.ParseDType(dtype)
		if err != nil {
			t.Fatal(err)
		}
		m, err := llama.New(c, dev, d, 5)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		tr, err := train.New(m, o)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		for range 3 {
			step, err := tr.Step(context.Background(), packs)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, step)
		}
		return all
	}
	h, err := host.Open(host.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	want := run(h, "f32")
	for name, tt := range map[string]struct {
		dtype        string
		tolerance    float64
		hopper, fast bool
	}{
		"f32":                       {"f32", 1e-4, false, false},
		"bf16":                      {"bf16", 2e-2, false, false},
		"bf16 on Hopper's kernels":  {"bf16", 2e-2, true, false},
		"bf16 on Hopper's and fast": {"bf16", 2e-2, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := openEmulated(t, 9)
			if tt.hopper && !d.m.hopper() {
				t.Skip("the card is no Hopper, or its compiler is too old")
			}
			d.hopper, d.fast = tt.hopper, tt.fast
			got, tolerance := run(d, tt.dtype), tt.tolerance
			for i := range want {
				t.Logf("step %d: loss %.6f, host %.6f; norm %.6f, host %.6f", i, got[i].Loss, want[i].Loss, got[i].GradNorm, want[i].GradNorm)
				if math.Abs(got[i].Loss-want[i].Loss) > tolerance*want[i].Loss || math.Abs(got[i].GradNorm-want[i].GradNorm) > 4*tolerance*want[i].GradNorm {
					t.Errorf("step %d: loss %g and norm %g, the host has %g and %g", i, got[i].Loss, got[i].GradNorm, want[i].Loss, want[i].GradNorm)
				}
			}
			if got[2].Loss >= got[0].Loss {
				t.Errorf("the loss does not fall: %g, then %g", got[0].Loss, got[2].Loss)
			}
		})
	}
}
