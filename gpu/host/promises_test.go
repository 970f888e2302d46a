package host_test

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// block is one transformer block with its head: every operation of a training step, on a pack of three sequences.
type block struct {
	d                                         *host.Device
	shape                                     gpu.AttentionShape
	positions, ids, targets                   []int32
	nll, coef                                 []float64
	table, dtable, norm, dnorm, rstd          gpu.Buffer
	x, n, q, k, v, y, o, gate, up, act, lse   gpu.Buffer
	dx, dn, dq, dk, dv, dy, dgate, dup, dact  gpu.Buffer
	wq, wk, wv, wgate, wup, wdown, head       gpu.Linear
	gq, gk, gv, ggate, gup, gdown, ghead, b   gpu.Buffer
	cos, sin, moment1, moment2                gpu.Buffer
	width, ff, vocab, heads, kv, e, tokens, t int
}

func newBlock(t testing.TB, d *host.Device, dtype gpu.DType) *block {
	const tokens, width, heads, kv, e, ff, vocab = 500, 64, 4, 2, 16, 88, 301
	b := &block{
		d: d, width: width, ff: ff, vocab: vocab, heads: heads, kv: kv, e: e, tokens: tokens,
		shape: gpu.AttentionShape{Heads: heads, KVHeads: kv, HeadDim: e, Scale: 0.25, CuSeqlens: []int32{0, 70, 131, 500}},
	}
	seed := uint32(7)
	buf := func(n int) gpu.Buffer {
		x, err := d.Alloc(n, dtype)
		if err != nil {
			t.Fatal(err)
		}
		h := make([]float32, n)
		for i := range h {
			seed = seed*1664525 + 1013904223
			h[i] = float32(int32(seed)) / (1 << 31)
		}
		d.Upload(x, h)
		return x
	}
	lin := func(in, out int) gpu.Linear { return gpu.Linear{In: in, Out: out, W: buf(in * out)} }
	for i := range tokens {
		b.positions = append(b.positions, int32(i%400))
		b.ids = append(b.ids, int32(i*37%vocab))
		b.targets = append(b.targets, int32(i*53%vocab)-int32(i%3)*1000)
		b.coef = append(b.coef, 1/float64(i+1))
	}
	b.nll = make([]float64, tokens)
	b.table, b.dtable, b.norm, b.dnorm, b.rstd = buf(vocab*width), buf(vocab*width), buf(width), buf(width), buf(tokens)
	b.x, b.n, b.q, b.k, b.v = buf(tokens*width), buf(tokens*width), buf(tokens*width), buf(tokens*kv*e), buf(tokens*kv*e)
	b.y, b.o, b.gate, b.up, b.act, b.lse = buf(tokens*width), buf(tokens*width), buf(tokens*ff), buf(tokens*ff), buf(tokens*ff), buf(tokens*heads)
	b.dx, b.dn, b.dq, b.dk, b.dv, b.dy = buf(tokens*width), buf(tokens*width), buf(tokens*width), buf(tokens*kv*e), buf(tokens*kv*e), buf(tokens*width)
	b.dgate, b.dup, b.dact = buf(tokens*ff), buf(tokens*ff), buf(tokens*ff)
	b.wq, b.wk, b.wv = lin(width, width), lin(width, kv*e), lin(width, kv*e)
	b.wq.Bias, b.b = buf(width), buf(width)
	b.wgate, b.wup, b.wdown, b.head = lin(width, ff), lin(width, ff), lin(ff, width), lin(width, vocab)
	b.gq, b.gk, b.gv, b.ggate, b.gup, b.gdown, b.ghead = buf(width*width), buf(kv*e*width), buf(kv*e*width), buf(width*ff), buf(width*ff), buf(width*ff), buf(width*vocab)
	b.cos, b.sin = buf(400*e/2), buf(400*e/2)
	b.moment1, b.moment2 = buf(width*vocab), buf(width*vocab)
	d.Zero(b.moment2)
	return b
}

// step runs all operations and returns the gradient's squared norm.
func (b *block) step() float64 {
	d := b.d
	b.t++
	d.Embedding(b.x, b.table, b.ids, b.width)
	d.RMSNorm(b.n, b.rstd, b.x, b.norm, b.width, 1e-5)
	d.Linear(b.q, b.n, b.wq)
	d.Linear(b.k, b.n, b.wk)
	d.Linear(b.v, b.n, b.wv)
	d.Rope(b.q, b.cos, b.sin, b.positions, b.heads, b.e, b.e, gpu.RotateHalf, false)
	d.Rope(b.k, b.cos, b.sin, b.positions, b.kv, b.e, b.e, gpu.Interleaved, false)
	d.Attention(b.y, b.lse, b.q, b.k, b.v, b.shape)
	d.Linear(b.gate, b.y, b.wgate)
	d.Linear(b.up, b.y, b.wup)
	d.SwiGLU(b.act, b.gate, b.up)
	d.Linear(b.o, b.act, b.wdown)
	d.Add(b.o, b.x)
	d.CrossEntropy(b.nll, b.dx, b.ghead, b.o, b.head, b.targets, b.coef)
	d.LinearGradWeight(b.gdown, nil, b.dx, b.act, b.wdown)
	d.LinearGradInput(b.dact, b.dx, b.wdown, false)
	d.SwiGLUGrad(b.dgate, b.dup, b.dact, b.gate, b.up)
	d.LinearGradWeight(b.gup, nil, b.dup, b.y, b.wup)
	d.LinearGradInput(b.dy, b.dup, b.wup, false)
	d.LinearGradInput(b.dy, b.dgate, b.wgate, true)
	d.AttentionGrad(b.dq, b.dk, b.dv, b.dy, b.y, b.lse, b.q, b.k, b.v, b.shape)
	d.Rope(b.dq, b.cos, b.sin, b.positions, b.heads, b.e, b.e, gpu.RotateHalf, true)
	d.LinearGradWeight(b.gq, b.b, b.dq, b.n, b.wq)
	d.LinearGradInput(b.dn, b.dq, b.wq, false)
	d.RMSNormGrad(b.dx, b.dnorm, b.dn, b.x, b.norm, b.rstd, b.width)
	d.EmbeddingGrad(b.dtable, b.dx, b.ids, b.width)
	norm := d.SquaredNorm(b.dtable)
	d.AdamW(b.head.W, b.ghead, b.moment1, b.moment2, gpu.AdamW{LR: 1e-3, Beta1: .9, Beta2: .95, Eps: 1e-8, Step: b.t, GradScale: 1})
	d.AttentionCached(b.y.Slice(0, b.width), b.q.Slice(0, b.width), b.k, b.v, 1, 300, b.shape)
	return norm
}

func (b *block) results(t testing.TB) [][]float64 {
	t.Helper()
	out := [][]float64{slices.Clone(b.nll)}
	for _, x := range []gpu.Buffer{b.o, b.y, b.lse, b.dq, b.dk, b.dv, b.dx, b.dnorm, b.dtable, b.gq, b.b, b.gdown, b.gup, b.ghead, b.head.W} {
		h := make([]float64, x.Len())
		b.d.Download64(h, x)
		out = append(out, h)
	}
	if err := b.d.Sync(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestResultsDoNotDependOnThreads(t *testing.T) {
	for _, dtype := range []gpu.DType{gpu.Float32, gpu.Float64} {
		for _, kernels := range host.KernelSets() {
			t.Run(dtype.String()+" "+kernels, func(t *testing.T) {
				var want [][]float64
				for _, threads := range []int{1, 2, 3, 7} {
					b := newBlock(t, open(t, host.Options{Threads: threads, Kernels: kernels}), dtype)
					b.step()
					norm := b.step()
					if math.IsNaN(norm) || norm == 0 {
						t.Fatalf("the gradient's norm is %g", norm)
					}
					got := append(b.results(t), []float64{norm})
					if want == nil {
						want = got
					}
					for i := range got {
						if !slices.Equal(want[i], got[i]) {
							t.Errorf("result %d has other bits with %d threads than with one", i, threads)
						}
					}
				}
			})
		}
	}
}

func TestKernelSetsAgree(t *testing.T) {
	results := func(kernels string) [][]float64 {
		b := newBlock(t, open(t, host.Options{Kernels: kernels}), gpu.Float32)
		b.step()
		return b.results(t)
	}
	b := results("go")
	for _, kernels := range host.KernelSets() {
		a := results(kernels)
		for i := range len(a) - 1 { // the last is a weight after AdamW, which turns small gradients into steps
			var scale, worst float64
			for j := range a[i] {
				scale = max(scale, math.Abs(b[i][j]))
				worst = max(worst, math.Abs(a[i][j]-b[i][j]))
			}
			if !(worst <= 1e-3*scale) { // gradients of random weights are ill-conditioned
				t.Errorf("%s: result %d differs by %g of %g", kernels, i, worst, scale)
			}
		}
	}
}

// The environment variable chooses where the options do not, and the choice shows in the class.
func TestKernelsAreChosenByNameOrVariable(t *testing.T) {
	sets := host.KernelSets()
	class := func(opts host.Options) string {
		_, set, _ := strings.Cut(open(t, opts).Info().Class, runtime.GOARCH+"/")
		return set
	}
	t.Setenv(host.KernelsVariable, "")
	if got := class(host.Options{}); got != sets[0] {
		t.Errorf("the default is %s, want %s", got, sets[0])
	}
	for _, name := range sets {
		t.Setenv(host.KernelsVariable, name)
		if got := class(host.Options{}); got != name {
			t.Errorf("the variable asks for %s and gets %s", name, got)
		}
		if got := class(host.Options{Kernels: "go"}); got != "go" {
			t.Errorf("the option asks for go and gets %s", got)
		}
	}
}

// A token has the same bits alone, in a batch and elsewhere in a batch.
func TestRowsDoNotDependOnTheirPlace(t *testing.T) {
	d := open(t, host.Options{})
	const in, out, rows = 300, 70, 150
	alloc := func(n int) gpu.Buffer {
		x, err := d.Alloc(n, gpu.Float32)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	w, x := make([]float32, in*out), make([]float32, in)
	for i := range w {
		w[i] = float32(math.Sin(float64(i)))
	}
	for i := range x {
		x[i] = float32(math.Cos(float64(i * i)))
	}
	l := gpu.Linear{In: in, Out: out, W: alloc(in * out)}
	d.Upload(l.W, w)
	bx, by := alloc(rows*in), alloc(rows*out)
	for r := range rows {
		d.Upload(bx.Slice(r*in, (r+1)*in), x)
	}
	d.Linear(by, bx, l)
	want := make([]float32, out)
	d.Linear(by.Slice(0, out), bx.Slice(0, in), l)
	d.Download(want, by.Slice(0, out))
	for r := range rows {
		got := make([]float32, out)
		d.Download(got, by.Slice(r*out, (r+1)*out))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("row %d of a batch differs from the row alone:\n%s", r, diff)
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestStepsDoNotAllocate(t *testing.T) {
	for _, threads := range []int{1, 2} {
		b := newBlock(t, open(t, host.Options{Threads: threads}), gpu.Float32)
		// The two slices of AttentionCached are the caller's.
		if n := testing.AllocsPerRun(10, func() { b.step() }); n > 2 {
			t.Errorf("with %d threads a step allocates %v times beside two slices", threads, n-2)
		}
		if err := b.d.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	d, err := host.Open(host.Options{Threads: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines are left", after-before)
	}
	if d.Sync() == nil {
		t.Error("a closed device reports no failure")
	}
}

func TestProfileCountsOperations(t *testing.T) {
	b := newBlock(t, open(t, host.Options{}), gpu.Float32)
	b.d.StartProfile()
	b.step()
	stats := b.d.StopProfile()
	calls := map[string]int64{}
	for _, s := range stats {
		calls[s.Op] = s.Calls
		if s.Op == "SwiGLU" && (s.FLOPs == 0 || s.Bytes != float64(3*4*b.tokens*b.ff)) {
			t.Errorf("SwiGLU counts %g FLOP and %g bytes", s.FLOPs, s.Bytes)
		}
	}
	want := map[string]int64{
		"Embedding": 1, "RMSNorm": 1, "Linear": 6, "Rope": 3, "Attention": 1, "SwiGLU": 1, "Add": 1, "CrossEntropy": 1,
		"LinearGradWeight": 3, "LinearGradInput": 4, "SwiGLUGrad": 1, "AttentionGrad": 1, "RMSNormGrad": 1,
		"EmbeddingGrad": 1, "SquaredNorm": 1, "AdamW": 1, "AttentionCached": 1,
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	b.step()
	if left := b.d.StopProfile(); left != nil {
		t.Errorf("a stopped profile counts %v", left)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, opts := range map[string]host.Options{
		"kernels of another processor": {Kernels: "mmx"},
		"fewer threads than none":      {Threads: -1},
	} {
		if _, err := host.Open(opts); err == nil || !strings.HasPrefix(err.Error(), "host device: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := open(t, host.Options{})
	if _, err := d.Alloc(8, gpu.BFloat16); err == nil {
		t.Error("bf16 was allocated")
	}
	if _, err := d.Alloc(1<<50, gpu.Float32); err == nil {
		t.Error("a petabyte was allocated")
	}
}
