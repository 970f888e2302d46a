// Package devicetest is the suite that every gpu.Device passes: each operation against plain loops in
// float64 (reference.go), and the promises of package gpu about order, isolation and errors.
//
// Shapes in the cases are small and odd on purpose: none is a multiple of a tile, a block or a warp
// unless the claim is about that.
package devicetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

// Run runs the suite on devices made by open, which registers their closing with t.
func Run(t *testing.T, open func(t *testing.T) gpu.Device) {
	probe := open(t)
	for _, dtype := range []gpu.DType{gpu.Float64, gpu.Float32, gpu.BFloat16} {
		if !probe.Supports(dtype) {
			continue
		}
		t.Run(dtype.String(), func(t *testing.T) {
			s := &suite{open: open, dtype: dtype}
			t.Run("buffers", s.buffers)
			t.Run("embedding", s.embedding)
			t.Run("norm", s.norm)
			t.Run("linear", s.linear)
			t.Run("rope", s.rope)
			t.Run("attention", s.attention)
			t.Run("attention cached", s.attentionCached)
			t.Run("attention of several sequences", s.attentionStep)
			t.Run("swiglu and add", s.elementwise)
			t.Run("cross-entropy", s.crossEntropy)
			t.Run("adamw", s.adamw)
			t.Run("adamw in eight bits", s.adamw8)
			t.Run("transfers", s.transfers)
			t.Run("sampling", s.sampling)
			t.Run("isolation of sequences", s.isolation)
			t.Run("errors", s.errors)
		})
	}
}

type suite struct {
	open  func(t *testing.T) gpu.Device
	dtype gpu.DType
}

// tolerance is relative to the largest element of the expected result, at least 1: rounding of the
// type, times the growth that sums of some hundred terms have in practice.
func (s *suite) tolerance() float64 {
	switch s.dtype {
	case gpu.Float64:
		return 1e-12
	case gpu.Float32:
		return 4e-6
	}
	return 2e-2
}

// bench is a device with the conveniences of a test.
type bench struct {
	*testing.T
	gpu.Device
	dtype gpu.DType
	rng   *rand.Rand
}

func (s *suite) bench(t *testing.T) *bench {
	t.Helper()
	return &bench{T: t, Device: s.open(t), dtype: s.dtype, rng: rand.New(rand.NewPCG(1, 2))}
}

// normal returns n normal numbers that the type represents exactly, so that inputs carry no rounding.
func (b *bench) normal(n int, scale float64) matrix {
	x := make(matrix, n)
	for i := range x {
		x[i] = b.rng.NormFloat64() * scale
		switch b.dtype {
		case gpu.Float32:
			x[i] = float64(float32(x[i]))
		case gpu.BFloat16:
			x[i] = float64(math.Float32frombits(math.Float32bits(float32(x[i])) & 0xffff0000))
		}
	}
	return x
}

// buffer returns a buffer that holds x.
func (b *bench) buffer(x matrix) gpu.Buffer {
	b.Helper()
	d := b.empty(len(x))
	b.Upload64(d, x)
	return d
}

func (b *bench) empty(n int) gpu.Buffer {
	b.Helper()
	d, err := b.Alloc(n, b.dtype)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func (b *bench) host(n int) gpu.Buffer {
	b.Helper()
	d, err := b.AllocHost(n, b.dtype)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func (b *bench) read(d gpu.Buffer) matrix {
	b.Helper()
	x := make(matrix, d.Len())
	b.Download64(x, d)
	if err := b.Sync(); err != nil {
		b.Fatal(err)
	}
	return x
}

// near compares a buffer with what the reference says.
func (b *bench) near(name string, got gpu.Buffer, want matrix, tolerance float64) {
	b.Helper()
	nearly(b.T, name, b.read(got), want, tolerance)
}

func nearly(t *testing.T, name string, got, want matrix, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s has %d elements, not %d", name, len(got), len(want))
		return
	}
	var scale float64
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	worst, at := 0., -1
	for i := range want {
		if d := math.Abs(got[i] - want[i]); !(d <= worst) {
			worst, at = d, i
		}
	}
	if at >= 0 && !(worst <= tolerance*max(scale, 1)) {
		t.Errorf("%s[%d] = %.9g, want %.9g: off by %.2g, allowed %.2g of the largest (%.2g) or of 1", name, at, got[at], want[at], worst, tolerance, scale)
	}
}

func plus(a, b matrix) matrix {
	c := make(matrix, len(a))
	for i := range a {
		c[i] = a[i] + b[i]
	}
	return c
}

func (s *suite) buffers(t *testing.T) {
	b := s.bench(t)
	x := b.normal(1000, 1)
	d := b.buffer(x)
	b.near("a round trip", d, x, 0)
	b.near("a slice", d.Slice(10, 20), x[10:20], 0)
	b.near("a slice of a slice", d.Slice(10, 20).Slice(3, 5), x[13:15], 0)
	b.Zero(d.Slice(100, 200))
	clear(x[100:200])
	b.near("zeroing a slice", d, x, 0)
	b.Copy(d.Slice(0, 50), d.Slice(500, 550))
	copy(x, x[500:550])
	b.near("copying a slice", d, x, 0)
	f := make([]float32, 1000)
	b.Download(f, d)
	b.Upload(d, f)
	for i := range x {
		x[i] = float64(float32(x[i]))
	}
	b.near("a float32 round trip", d, x, 0)
	if got, want := b.SquaredNorm(d), dot(x, x); math.Abs(got-want) > 1e-6*want {
		t.Errorf("SquaredNorm = %g, want %g", got, want)
	}
}

func dot(x, y matrix) (s float64) {
	for i := range x {
		s += x[i] * y[i]
	}
	return s
}

func (s *suite) embedding(t *testing.T) {
	b := s.bench(t)
	for _, d := range []int{1, 24, 130, 1032} {
		table := b.normal(11*d, 1)
		ids := []int32{3, 0, 10, 3, 3, 7}
		want := make(matrix, len(ids)*d)
		for i, id := range ids {
			copy(want[i*d:], table[int(id)*d:int(id+1)*d])
		}
		y := b.empty(len(ids) * d)
		b.Embedding(y, b.buffer(table), ids, d)
		b.near("y", y, want, 0)

		dy, sum := b.normal(len(ids)*d, 1), b.normal(11*d, 1)
		dtable := b.buffer(sum)
		b.EmbeddingGrad(dtable, b.buffer(dy), ids, d)
		for i, id := range ids {
			for c := range d {
				sum[int(id)*d+c] += dy[i*d+c]
			}
		}
		b.near("dtable", dtable, sum, s.tolerance())
	}
}

func (s *suite) norm(t *testing.T) {
	for _, shape := range [][2]int{{1, 1}, {7, 24}, {300, 67}, {3, 1024}, {2, 2051}, {2, 4104}} {
		b := s.bench(t)
		rows, d := shape[0], shape[1]
		x, w, dy := b.normal(rows*d, 2), b.normal(d, 1), b.normal(rows*d, 1)
		dx, dw := b.normal(rows*d, 1), b.normal(d, 1)
		y, rstd := refRMSNorm(x, w, d, 1e-5)
		by, brstd, bx, bw := b.empty(rows*d), b.empty(rows), b.buffer(x), b.buffer(w)
		b.RMSNorm(by, brstd, bx, bw, d, 1e-5)
		b.near("y", by, y, s.tolerance())
		b.near("rstd", brstd, rstd, s.tolerance())

		gx, gw := refRMSNormGrad(dy, x, w, rstd, d)
		bdx, bdw, bdx2 := b.buffer(dx), b.buffer(dw), b.buffer(dx)
		b.RMSNormGrad(bdx, bdw, b.buffer(dy), bx, bw, brstd, d)
		b.near("dx", bdx, plus(dx, gx), 4*s.tolerance())
		b.near("dw", bdw, plus(dw, gw), 4*s.tolerance())
		b.RMSNormGrad(bdx2, nil, b.buffer(dy), bx, bw, brstd, d)
		b.near("dx without dw", bdx2, plus(dx, gx), 4*s.tolerance())
	}
}

func (s *suite) linear(t *testing.T) {
	for _, shape := range [][3]int{{1, 1, 1}, {1, 64, 48}, {2, 300, 33}, {5, 7, 9}, {70, 70, 70}, {163, 40, 257}, {37, 530, 24}} {
		rows, in, out := shape[0], shape[1], shape[2]
		t.Run(fmt.Sprintf("%d rows %d to %d", rows, in, out), func(t *testing.T) {
			b := s.bench(t)
			x, w, bias := b.normal(rows*in, 1), b.normal(in*out, 1), b.normal(out, 1)
			dy, dx, dw, dbias := b.normal(rows*out, 1), b.normal(rows*in, 1), b.normal(in*out, 1), b.normal(out, 1)
			gx, gw, gb := refLinearGrad(dy, x, w, in, out)

			bx, bdy := b.buffer(x), b.buffer(dy)
			l := gpu.Linear{In: in, Out: out, W: b.buffer(w)}
			y := b.empty(rows * out)
			b.Linear(y, bx, l)
			b.near("y without bias", y, refLinear(x, w, nil, in, out), s.tolerance())
			l.Bias = b.buffer(bias)
			b.Linear(y, bx, l)
			b.near("y", y, refLinear(x, w, bias, in, out), s.tolerance())

			bdx := b.buffer(dx)
			b.LinearGradInput(bdx, bdy, l, true)
			b.near("dx added", bdx, plus(dx, gx), s.tolerance())
			b.LinearGradInput(bdx, bdy, l, false)
			b.near("dx written", bdx, gx, s.tolerance())

			bdw, bdbias := b.buffer(dw), b.buffer(dbias)
			b.LinearGradWeight(bdw, bdbias, bdy, bx, l)
			b.near("dw", bdw, plus(dw, gw), s.tolerance())
			b.near("dbias", bdbias, plus(dbias, gb), s.tolerance())
			b.LinearGradWeight(bdw, nil, bdy, bx, l)
			b.near("dw without dbias", bdw, plus(plus(dw, gw), gw), s.tolerance())

			w2 := b.normal(in*out, 1)
			b.Upload64(l.W, w2)
			b.Linear(y, bx, l)
			b.near("y after uploading a weight", y, refLinear(x, w2, bias, in, out), s.tolerance())
			b.Add(l.W, l.W)
			b.WeightsChanged()
			b.Linear(y, bx, l)
			b.near("y after doubling a weight", y, refLinear(x, plus(w2, w2), bias, in, out), s.tolerance())
		})
	}
}

func (s *suite) rope(t *testing.T) {
	for name, c := range map[string]struct {
		heads, e, rotary int
		layout           gpu.Layout
	}{
		"whole heads by halves":      {2, 32, 32, gpu.RotateHalf},
		"part of a head by halves":   {3, 20, 12, gpu.RotateHalf},
		"half a head interleaved":    {2, 32, 16, gpu.Interleaved},
		"one head of width two":      {1, 2, 2, gpu.Interleaved},
		"a wide head, odd half":      {2, 54, 54, gpu.RotateHalf},
		"many heads make many parts": {8, 64, 64, gpu.RotateHalf},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t)
			positions := make([]int32, 90)
			for i := range positions {
				positions[i] = int32(i * 7 % 40)
			}
			cos, sin := b.normal(40*c.rotary/2, 1), b.normal(40*c.rotary/2, 1)
			x := b.normal(len(positions)*c.heads*c.e, 1)
			bx, bc, bs := b.buffer(x), b.buffer(cos), b.buffer(sin)
			b.Rope(bx, bc, bs, positions, c.heads, c.e, c.rotary, c.layout, false)
			y := refRope(x, cos, sin, positions, c.heads, c.e, c.rotary, c.layout, false)
			b.near("x", bx, y, s.tolerance())
			b.Upload64(bx, x)
			b.Rope(bx, bc, bs, positions, c.heads, c.e, c.rotary, c.layout, true)
			b.near("x rotated back", bx, refRope(x, cos, sin, positions, c.heads, c.e, c.rotary, c.layout, true), s.tolerance())
		})
	}
}

func (s *suite) elementwise(t *testing.T) {
	for _, n := range []int{1, 7, 64, 5003, 40000} {
		b := s.bench(t)
		gate, up, dy := b.normal(n, 3), b.normal(n, 1), b.normal(n, 1)
		gate[0] = -100 // exp(100) overflows float32
		bg, bu, y := b.buffer(gate), b.buffer(up), b.empty(n)
		b.SwiGLU(y, bg, bu)
		b.near("y", y, refSwiGLU(gate, up), s.tolerance())
		dgate, dup := refSwiGLUGrad(dy, gate, up)
		b1, b2 := b.empty(n), b.empty(n)
		b.SwiGLUGrad(b1, b2, b.buffer(dy), bg, bu)
		b.near("dgate", b1, dgate, s.tolerance())
		b.near("dup", b2, dup, s.tolerance())
		b.SwiGLUGrad(bg, bu, b.buffer(dy), bg, bu)
		b.near("dgate in place", bg, dgate, s.tolerance())
		b.near("dup in place", bu, dup, s.tolerance())
		b.Add(b1, b2)
		b.near("a sum", b1, plus(dgate, dup), s.tolerance())
	}
}

func (s *suite) crossEntropy(t *testing.T) {
	for name, c := range map[string]struct {
		tokens, d, vocab, every int
		scale                   float64
	}{
		"every token a target":       {50, 24, 77, 1, 1},
		"one token in five a target": {130, 33, 50, 5, 1},
		"no target at all":           {9, 8, 10, 1000, 1},
		"a vocabulary of one":        {3, 8, 1, 1, 1},
		"logits far apart":           {20, 64, 33, 1, 8},
		"several chunks":             {1300, 16, 40, 1, 1},
		"a wide vocabulary":          {5, 16, 8200, 1, 1},
		"a wide vocabulary, odd":     {5, 16, 4099, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t)
			h, w := b.normal(c.tokens*c.d, c.scale), b.normal(c.vocab*c.d, 1)
			targets, coef := make([]int32, c.tokens), make([]float64, c.tokens)
			for i := range targets {
				targets[i] = -100
				if (i+1)%c.every == 0 {
					targets[i] = int32(i % c.vocab)
				}
				coef[i] = b.rng.Float64()
			}
			nll, dh, dw := refCrossEntropy(h, w, c.d, c.vocab, targets, coef)
			head := gpu.Linear{In: c.d, Out: c.vocab, W: b.buffer(w)}
			bh := b.buffer(h)
			got := make([]float64, c.tokens)
			b.CrossEntropy(got, nil, nil, bh, head, targets, nil)
			if err := b.Sync(); err != nil {
				t.Fatal(err)
			}
			nearly(t, "nll", got, nll, 4*s.tolerance())
			sum := b.normal(len(w), 1)
			bdh, bdw := b.buffer(b.normal(len(h), 1)), b.buffer(sum)
			clear(got)
			b.CrossEntropy(got, bdh, bdw, bh, head, targets, coef)
			b.near("dh", bdh, dh, 4*s.tolerance())
			b.near("dw", bdw, plus(sum, dw), 4*s.tolerance())
			nearly(t, "nll with gradient", got, nll, 4*s.tolerance())
			b.Zero(bdh)
			b.CrossEntropy(got, bdh, nil, bh, head, targets, coef)
			b.near("dh without dw", bdh, dh, 4*s.tolerance())
		})
	}
}

func (s *suite) adamw(t *testing.T) {
	for _, n := range []int{1, 13, 30011} {
		b := s.bench(t)
		w, g, m, v := b.normal(n, 1), b.normal(n, 1), make(matrix, n), make(matrix, n)
		bw, bg, bm, bv := b.buffer(w), b.buffer(g), b.empty(n), b.empty(n)
		for step := 1; step <= 3; step++ {
			p := gpu.AdamW{LR: 0.01, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, Step: step, GradScale: 0.5}
			b.AdamW(bw, bg, bm, bv, p)
			refAdamW(w, g, m, v, p)
		}
		b.near("w", bw, w, s.tolerance())
		b.near("m", bm, m, s.tolerance())
		b.near("v", bv, v, s.tolerance())
	}
}
