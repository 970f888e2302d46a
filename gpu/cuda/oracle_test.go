package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// pair is the same buffer on the host (float32, of values that bfloat16 represents) and on the emulator (bfloat16).
type pair struct{ host, card gpu.Buffer }

// oracle runs bfloat16 operations on the emulator and the same on the host in float32.
type oracle struct {
	*testing.T
	host *host.Device
	card *Device
	rng  *rand.Rand
}

func newOracle(t *testing.T, seed uint64) *oracle {
	t.Helper()
	h, err := host.Open(host.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return &oracle{t, h, openEmulated(t, seed), rand.New(rand.NewPCG(seed, 2))}
}

// buffer returns n normal numbers in both places, the card's of type t.
func (o *oracle) buffer(n int, t gpu.DType) pair {
	o.Helper()
	x := make([]float32, n)
	for i := range x {
		x[i] = math.Float32frombits(math.Float32bits(float32(o.rng.NormFloat64())) &^ 0xffff)
	}
	h, err := o.host.Alloc(n, gpu.Float32)
	if err != nil {
		o.Fatal(err)
	}
	c, err := o.card.Alloc(n, t)
	if err != nil {
		o.Fatal(err)
	}
	o.host.Upload(h, x)
	o.card.Upload(c, x)
	return pair{h, c}
}

func (o *oracle) read(d gpu.Device, b gpu.Buffer) []float32 {
	o.Helper()
	x := make([]float32, b.Len())
	d.Download(x, b)
	if err := d.Sync(); err != nil {
		o.Fatal(err)
	}
	return x
}

// near compares by the norm of the difference over the norm of the oracle's.
func (o *oracle) near(name string, p pair, tolerance float64) {
	o.Helper()
	want, got := o.read(o.host, p.host), o.read(o.card, p.card)
	var num, den float64
	for i := range want {
		num += math.Pow(float64(got[i]-want[i]), 2)
		den += math.Pow(float64(want[i]), 2)
	}
	den = max(den, 0.01*float64(len(want)), 1e-9) // what cancels to nothing is compared with the size of its terms
	if e := math.Sqrt(num / den); !(e <= tolerance) {
		o.Errorf("%s is off by %.2g of its norm, allowed %.2g", name, e, tolerance)
	}
}

// The kernels of the matrix units agree with the host, for every width, grouping, window and length about a tile's edges.
func TestMatrixAttentionMatchesTheHost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the emulator takes some seconds")
	}
	const tolerance = 6e-3 // bfloat16 keeps 8 bits: 2⁻⁹ of each rounded input of a product, twice
	for name, s := range map[string]gpu.AttentionShape{
		"width 64, lengths about a tile":   {Heads: 2, KVHeads: 1, HeadDim: 64, CuSeqlens: []int32{0, 1, 64, 129, 257}},
		"width 128, lengths about a tile":  {Heads: 2, KVHeads: 2, HeadDim: 128, CuSeqlens: []int32{0, 63, 191}},
		"width 128, groups of four":        {Heads: 4, KVHeads: 1, HeadDim: 128, CuSeqlens: []int32{0, 100}},
		"width 128, groups of eight":       {Heads: 8, KVHeads: 1, HeadDim: 128, CuSeqlens: []int32{0, 67, 70}},
		"width 64, two groups of eight":    {Heads: 16, KVHeads: 2, HeadDim: 64, Window: 40, CuSeqlens: []int32{0, 66}},
		"one token":                        {Heads: 2, KVHeads: 1, HeadDim: 128, CuSeqlens: []int32{0, 1}},
		"no token":                         {Heads: 2, KVHeads: 1, HeadDim: 64, CuSeqlens: []int32{0, 0}},
		"an empty sequence":                {Heads: 1, KVHeads: 1, HeadDim: 64, CuSeqlens: []int32{0, 70, 70, 90}},
		"width 64, a window within a tile": {Heads: 2, KVHeads: 1, HeadDim: 64, Window: 7, CuSeqlens: []int32{0, 150, 200}},
		"width 64, a window over tiles":    {Heads: 1, KVHeads: 1, HeadDim: 64, Window: 100, CuSeqlens: []int32{0, 300}},
		"width 128, a window of a tile":    {Heads: 1, KVHeads: 1, HeadDim: 128, Window: 64, CuSeqlens: []int32{0, 200}},
		"width 128, a window of one":       {Heads: 1, KVHeads: 1, HeadDim: 128, Window: 1, CuSeqlens: []int32{0, 130}},
		"width 64, a text of six tiles":    {Heads: 1, KVHeads: 1, HeadDim: 64, CuSeqlens: []int32{0, 20, 650}},
		"width 96 goes by rows":            {Heads: 2, KVHeads: 1, HeadDim: 96, Window: 30, CuSeqlens: []int32{0, 80}},
	} {
		for _, kernels := range []string{"every card's", "Hopper's", "Hopper's fast"} {
			t.Run(name+", on "+kernels+" kernels", func(t *testing.T) {
				o := newOracle(t, 5)
				o.card.hopper, o.card.fast = kernels != "every card's", kernels == "Hopper's fast"
				if o.card.hopper && !o.card.m.hopper() {
					t.Skip("the card is no Hopper, or its compiler is too old")
				}
				o.attention(s, tolerance)
			})
		}
	}
}

// attention compares attention and its gradient.
func (o *oracle) attention(s gpu.AttentionShape, tolerance float64) {
	o.Helper()
	s.Scale = 1 / math.Sqrt(float64(s.HeadDim))
	T := int(s.CuSeqlens[len(s.CuSeqlens)-1])
	nq, nk := T*s.Heads*s.HeadDim, T*s.KVHeads*s.HeadDim
	q, k, v, dy := o.buffer(nq, gpu.BFloat16), o.buffer(nk, gpu.BFloat16), o.buffer(nk, gpu.BFloat16), o.buffer(nq, gpu.BFloat16)
	y, lse := o.buffer(nq, gpu.BFloat16), o.buffer(T*s.Heads, gpu.Float32)
	dq, dk, dv := o.buffer(nq, gpu.BFloat16), o.buffer(nk, gpu.BFloat16), o.buffer(nk, gpu.BFloat16)
	o.host.Attention(y.host, lse.host, q.host, k.host, v.host, s)
	o.card.Attention(y.card, lse.card, q.card, k.card, v.card, s)
	o.near("y", y, tolerance)
	o.near("lse", lse, 1e-5)
	o.host.AttentionGrad(dq.host, dk.host, dv.host, dy.host, y.host, lse.host, q.host, k.host, v.host, s)
	o.card.AttentionGrad(dq.card, dk.card, dv.card, dy.card, y.card, lse.card, q.card, k.card, v.card, s)
	o.near("dq", dq, 2*tolerance)
	o.near("dk", dk, 2*tolerance)
	o.near("dv", dv, 2*tolerance)
}

func TestMatrixAttentionToACacheMatchesTheHost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the emulator takes some seconds")
	}
	for name, c := range map[string]struct{ n, length, capacity, window, width int }{
		"a prompt":                    {100, 100, 128, 0, 64},
		"a block after a prompt":      {70, 201, 256, 0, 128},
		"a block in a window":         {65, 300, 300, 90, 64},
		"seven tokens share the keys": {7, 700, 700, 0, 64},
		"three tokens in a window":    {3, 900, 1000, 100, 128},
		"a width with idle lanes":     {2, 333, 400, 0, 48},
		"one token":                   {1, 200, 200, 0, 128},
		"one token in a window":       {1, 200, 200, 33, 64},
		"a few tokens of a long text": {9, 520, 600, 0, 64},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle(t, 6)
			o.card.hopper = c.n%2 == 0 && o.card.m.hopper() // both kinds of kernels
			s := gpu.AttentionShape{Heads: 4, KVHeads: 2, HeadDim: c.width, Window: c.window, Scale: 1 / math.Sqrt(float64(c.width))}
			q, y := o.buffer(c.n*4*c.width, gpu.BFloat16), o.buffer(c.n*4*c.width, gpu.BFloat16)
			k, v := o.buffer(c.capacity*2*c.width, gpu.BFloat16), o.buffer(c.capacity*2*c.width, gpu.BFloat16)
			o.host.AttentionCached(y.host, q.host, k.host, v.host, c.n, c.length, s)
			o.card.AttentionCached(y.card, q.card, k.card, v.card, c.n, c.length, s)
			o.near("y", y, 6e-3)
		})
	}
}

// A bfloat16 model keeps gradients of weights and statistics in float32.
func TestMixedTypesMatchTheHost(t *testing.T) {
	t.Parallel()
	o := newOracle(t, 7)
	const rows, in, out = 140, 72, 40
	x, dy := o.buffer(rows*in, gpu.BFloat16), o.buffer(rows*out, gpu.BFloat16)
	dw, dbias := o.buffer(in*out, gpu.Float32), o.buffer(out, gpu.Float32)
	l := gpu.Linear{In: in, Out: out}
	o.host.LinearGradWeight(dw.host, dbias.host, dy.host, x.host, l)
	o.card.LinearGradWeight(dw.card, dbias.card, dy.card, x.card, l)
	o.near("dw", dw, 1e-6)
	o.near("dbias", dbias, 1e-6)

	w, norm, rstd := o.buffer(in, gpu.BFloat16), o.buffer(rows*in, gpu.BFloat16), o.buffer(rows, gpu.Float32)
	dnorm, dx, dnw := o.buffer(rows*in, gpu.BFloat16), o.buffer(rows*in, gpu.BFloat16), o.buffer(in, gpu.Float32)
	o.host.RMSNorm(norm.host, rstd.host, x.host, w.host, in, 1e-5)
	o.card.RMSNorm(norm.card, rstd.card, x.card, w.card, in, 1e-5)
	o.near("norm", norm, 3e-3)
	o.near("rstd", rstd, 1e-6)
	o.host.RMSNormGrad(dx.host, dnw.host, dnorm.host, x.host, w.host, rstd.host, in)
	o.card.RMSNormGrad(dx.card, dnw.card, dnorm.card, x.card, w.card, rstd.card, in)
	o.near("dx of the norm", dx, 3e-3)
	o.near("dw of the norm", dnw, 1e-6)

	cos, sin := o.buffer(30*8, gpu.Float32), o.buffer(30*8, gpu.Float32)
	h := o.buffer(20*2*16, gpu.BFloat16)
	positions := make([]int32, 20)
	for i := range positions {
		positions[i] = int32(i * 3 % 30)
	}
	o.host.Rope(h.host, cos.host, sin.host, positions, 2, 16, 16, gpu.RotateHalf, true)
	o.card.Rope(h.card, cos.card, sin.card, positions, 2, 16, 16, gpu.RotateHalf, true)
	o.near("rotated", h, 3e-3)

	ids := []int32{4, 1, 4, 0, 4}
	rowsOf, table := o.buffer(5*24, gpu.BFloat16), o.buffer(6*24, gpu.Float32)
	o.host.EmbeddingGrad(table.host, rowsOf.host, ids, 24)
	o.card.EmbeddingGrad(table.card, rowsOf.card, ids, 24)
	o.near("dtable", table, 1e-6)

	hidden, head := o.buffer(60*in, gpu.BFloat16), o.buffer(90*in, gpu.BFloat16)
	dh, dhead := o.buffer(60*in, gpu.BFloat16), o.buffer(90*in, gpu.Float32)
	targets, coef := make([]int32, 60), make([]float64, 60)
	for i := range targets {
		targets[i], coef[i] = int32(i*7%90), 1/float64(i+1)
		if i%3 == 0 {
			targets[i] = -100
		}
	}
	want, got := make([]float64, 60), make([]float64, 60)
	o.host.CrossEntropy(want, dh.host, dhead.host, hidden.host, gpu.Linear{In: in, Out: 90, W: head.host}, targets, coef)
	o.card.CrossEntropy(got, dh.card, dhead.card, hidden.card, gpu.Linear{In: in, Out: 90, W: head.card}, targets, coef)
	o.near("dh", dh, 4e-3)
	o.near("dw of the head", dhead, 4e-3)
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-5*math.Max(1, want[i]) {
			t.Fatalf("nll[%d] = %g, want %g", i, got[i], want[i])
		}
	}

	master, compute := o.buffer(1000, gpu.Float32), o.buffer(1000, gpu.BFloat16)
	o.card.Copy(compute.card, master.card)
	o.host.Copy(compute.host, master.host)
	o.near("weights rounded from their masters", compute, 0)
}

// No bit depends on the order in which the machine runs lanes, warps and blocks.
func TestSchedulingDoesNotShow(t *testing.T) {
	t.Parallel()
	s := gpu.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: 64, Scale: 0.125, CuSeqlens: []int32{0, 90, 130}}
	run := func(schedule uint64, hopper bool) (all []float32) {
		o := newOracle(t, 8)
		o.card = openEmulated(t, schedule)
		o.card.hopper = hopper && o.card.m.hopper()
		q, k, v, dy := o.buffer(130*128, gpu.BFloat16), o.buffer(130*64, gpu.BFloat16), o.buffer(130*64, gpu.BFloat16), o.buffer(130*128, gpu.BFloat16)
		y, lse := o.buffer(130*128, gpu.BFloat16), o.buffer(260, gpu.Float32)
		dq, dk, dv, dw := o.buffer(130*128, gpu.BFloat16), o.buffer(130*64, gpu.BFloat16), o.buffer(130*64, gpu.BFloat16), o.buffer(64*64, gpu.Float32)
		o.card.Attention(y.card, lse.card, q.card, k.card, v.card, s)
		o.card.AttentionGrad(dq.card, dk.card, dv.card, dy.card, y.card, lse.card, q.card, k.card, v.card, s)
		o.card.LinearGradWeight(dw.card, nil, k.card, v.card, gpu.Linear{In: 64, Out: 64})
		for _, p := range []pair{y, lse, dq, dk, dv, dw} {
			all = append(all, o.read(o.card, p.card)...)
		}
		return append(all, float32(o.card.SquaredNorm(dy.card)))
	}
	for _, hopper := range []bool{false, true} {
		a, b := run(11, hopper), run(12, hopper)
		for i := range a {
			if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
				t.Fatalf("value %d is %g under one schedule, %g under another", i, a[i], b[i])
			}
		}
	}
}
