package train_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

var update = flag.Bool("update", false, "rewrite testdata/golden.jsonl from a float64 run")

// line is one line of a golden file: a step, or the norm of a parameter or of its first gradient.
type line struct {
	Step     *int    `json:"step,omitempty"`
	Loss     float64 `json:"loss,omitempty"`
	LR       float64 `json:"lr,omitempty"`
	GradNorm float64 `json:"grad_norm,omitempty"`
	Param    string  `json:"param,omitempty"`
	Grad     string  `json:"grad,omitempty"`
	L2       float64 `json:"l2,omitempty"`
	Sum      float64 `json:"sum,omitempty"`
}

func readLines[T any](t *testing.T, path string) []T {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		if !strings.HasPrefix(sc.Text(), "{") {
			continue
		}
		var v T
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, v)
	}
	return out
}

// sharedDir returns a folder of reference data beside the repository, or skips.
func sharedDir(t *testing.T, parts ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{"..", "..", "..", "shared"}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the reference data %s is not here", path)
	}
	return path
}

func openHost(t testing.TB) gpu.Device {
	t.Helper()
	dev, err := host.Open(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

// goldenRun trains as the golden files say and returns their lines.
func goldenRun(t *testing.T, m *llama.Model, o train.Options, packs []datasets.Pack, perStep int) []line {
	t.Helper()
	tr, err := train.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	src, err := train.Cycle(packs, perStep)
	if err != nil {
		t.Fatal(err)
	}
	var out []line
	first, err := src.Batch(0)
	if err != nil {
		t.Fatal(err)
	}
	mt, err := tr.Gradient(context.Background(), first.MicroBatches)
	if err != nil {
		t.Fatal(err)
	}
	scale := 1.0
	if o.Clip > 0 && mt.GradNorm > o.Clip {
		scale = o.Clip / mt.GradNorm
	}
	for _, p := range m.Params() {
		x := make([]float64, p.Len())
		m.Device().Download64(x, p.Grad)
		l2, _ := norms(x)
		out = append(out, line{Grad: p.Name, L2: scale * l2})
	}
	err = tr.Run(context.Background(), src, train.LoopOptions{OnStep: func(m train.Metrics) error {
		out = append(out, line{Step: &m.Step, Loss: m.Loss, LR: m.LR, GradNorm: m.GradNorm})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params() {
		x := make([]float64, p.Len())
		m.Device().Download64(x, p.Weight)
		l2, sum := norms(x)
		out = append(out, line{Param: p.Name, L2: l2, Sum: sum})
	}
	return out
}

func norms(x []float64) (l2, sum float64) {
	for _, v := range x {
		l2 += v * v
		sum += v
	}
	return math.Sqrt(l2), sum
}

// compareGolden holds steps to one tolerance and parameters to another, both relative to at least 1 for steps.
func compareGolden(t *testing.T, want, got []line, steps, params float64) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d lines, want %d", len(got), len(want))
	}
	var maxLR float64
	for _, w := range want {
		maxLR = max(maxLR, w.LR)
	}
	near := func(what string, w, g, scale, tolerance float64) {
		if !(math.Abs(w-g) <= tolerance*scale) {
			t.Errorf("%s: %.15g, want %.15g", what, g, w)
		}
	}
	for i, w := range want {
		g := got[i]
		switch {
		case w.Step != nil:
			if g.Step == nil || *g.Step != *w.Step {
				t.Fatalf("line %d is not step %d", i, *w.Step)
			}
			near("loss", w.Loss, g.Loss, max(1, w.Loss), steps)
			near("gradient norm", w.GradNorm, g.GradNorm, max(1, w.GradNorm), steps)
			near("learning rate", w.LR, g.LR, maxLR, steps)
		default:
			if w.Param != g.Param || w.Grad != g.Grad {
				t.Fatalf("line %d is of %s%s, want %s%s", i, g.Param, g.Grad, w.Param, w.Grad)
			}
			near(w.Param+w.Grad+" norm", w.L2, g.L2, w.L2, params)
			near(w.Param+" sum", w.Sum, g.Sum, 10*w.L2, params)
		}
	}
}

func goldenOptions(loss datasets.Loss, clip float64, dtype string) train.Options {
	o := train.DefaultOptions()
	o.Steps, o.LR, o.WarmupSteps, o.Clip, o.Loss, o.DType = 8, 1e-3, 2, clip, loss, dtype
	return o
}

func TestTrainingEqualsTheOracle(t *testing.T) {
	dir := sharedDir(t, "oracle", "golden")
	for name, tt := range map[string]struct {
		file, packs string
		loss        datasets.Loss
		perStep     int
		clip        float64
	}{
		"longalign":                         {"train_longalign", "packs", datasets.LossLongAlign, 2, 0},
		"token":                             {"train_token", "packs", datasets.LossToken, 2, 0},
		"pack":                              {"train_pack", "packs", datasets.LossPack, 2, 0},
		"longalign, weights and no targets": {"train_uneven_longalign", "packs_uneven", datasets.LossLongAlign, 3, 1},
		"token, weights and no targets":     {"train_uneven_token", "packs_uneven", datasets.LossToken, 3, 1},
		"pack, weights and no targets":      {"train_uneven_pack", "packs_uneven", datasets.LossPack, 3, 1},
	} {
		for dtype, tol := range map[string]struct{ steps, params float64 }{"f32": {2e-5, 1e-4}, "f64": {1e-10, 1e-10}} {
			t.Run(name+", "+dtype, func(t *testing.T) {
				dev := openHost(t)
				kind, err := train.ParseDType(dtype)
				if err != nil {
					t.Fatal(err)
				}
				m, err := llama.Load(filepath.Join(dir, "model"), dev, kind)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				packs := readLines[datasets.Pack](t, filepath.Join(dir, tt.packs+".jsonl"))
				got := goldenRun(t, m, goldenOptions(tt.loss, tt.clip, dtype), packs, tt.perStep)
				compareGolden(t, readLines[line](t, filepath.Join(dir, tt.file+".jsonl")), got, tol.steps, tol.params)
			})
		}
	}
}

// tinyShape is small enough to train in milliseconds.
var tinyShape = llama.Shape{Dim: 16, Layers: 2, Heads: 4, KVHeads: 2, FeedForward: 24, Vocab: 40, Context: 64, Tied: true, BOS: 1, EOS: 2}

func tinyModel(t testing.TB, dev gpu.Device, dtype gpu.DType) *llama.Model {
	t.Helper()
	c, err := tinyShape.Config()
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New(c, dev, dtype, 5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// tinyPacks are made by arithmetic, so that they need no file: uneven sequences, one without
// targets, weights other than 1.
func tinyPacks(n int) []datasets.Pack {
	packs := make([]datasets.Pack, n)
	x := uint32(12345)
	next := func(below int32) int32 {
		x = x*1664525 + 1013904223
		return int32(x>>8) % below
	}
	for k := range packs {
		p := datasets.Pack{CuSeqlens: []int32{0}}
		for i := range 3 + k%3 {
			length := 2 + next(14)
			for s := range length {
				id := next(40)
				p.InputIDs = append(p.InputIDs, id)
				if s < length/3 || i == 1 && k%2 == 0 {
					id = datasets.IgnoreIndex
				}
				p.Labels = append(p.Labels, id)
			}
			p.CuSeqlens = append(p.CuSeqlens, int32(len(p.InputIDs)))
			p.Weights = append(p.Weights, 1+0.5*float64(i%2))
		}
		packs[k] = p
	}
	return packs
}

// TestTrainingEqualsItsOwnGolden holds both types to testdata/golden.jsonl, which this test wrote in float64 (-update)
// when that agreed with the independent oracle of TestTrainingEqualsTheOracle to 1e-14.
func TestTrainingEqualsItsOwnGolden(t *testing.T) {
	path := filepath.Join("testdata", "golden.jsonl")
	o := goldenOptions(datasets.LossLongAlign, 0.5, "f64")
	o.WeightDecay = 0.01
	if *update {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		for _, l := range goldenRun(t, tinyModel(t, openHost(t), gpu.Float64), o, tinyPacks(7), 2) {
			if err := enc.Encode(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := readLines[line](t, path)
	compareGolden(t, want, goldenRun(t, tinyModel(t, openHost(t), gpu.Float64), o, tinyPacks(7), 2), 1e-10, 1e-10)
	o.DType = "f32"
	compareGolden(t, want, goldenRun(t, tinyModel(t, openHost(t), gpu.Float32), o, tinyPacks(7), 2), 2e-5, 1e-4)
}
