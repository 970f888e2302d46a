package host

import (
	"fmt"
	"unsafe"

	"github.com/longalign/longalign-go/gpu"
)

// packCache keeps packed weights until they are written. It sees Upload, Copy, Zero, AdamW, Free and
// WeightsChanged; other operations do not write weights.
type packCache map[packKey]*packedWeight

type packKey struct {
	at      unsafe.Pointer // keeps the weight alive, so that its address stays its own
	in, out int
	grad    bool // packed for LinearGradInput
}

type packedWeight struct {
	lo, hi uintptr // memory of the weight
	fresh  bool
	f32    []float32
	f64    []float64
}

func (c *packCache) written(b *Buffer) {
	if len(*c) == 0 {
		return
	}
	lo, hi := b.bounds()
	for _, p := range *c {
		if p.lo < hi && lo < p.hi {
			p.fresh = false
		}
	}
}

func (c *packCache) forget(b *Buffer) {
	lo, hi := b.bounds()
	for k, p := range *c {
		if p.lo < hi && lo < p.hi {
			delete(*c, k)
		}
	}
}

func (c *packCache) drop() { *c = nil }

// WeightsChanged makes all packed weights stale.
func (d *Device) WeightsChanged() {
	for _, p := range d.packs {
		p.fresh = false
	}
}

// weight returns l.W packed as right operand of y = x wᵀ, or of dx = dy w with grad.
func (e *engine[F]) weight(l gpu.Linear, grad bool) []F {
	w := elements[F](l.W)
	if e.dev.packs == nil {
		e.dev.packs = packCache{}
	}
	key := packKey{at: unsafe.Pointer(unsafe.SliceData(w)), in: l.In, out: l.Out, grad: grad}
	p := e.dev.packs[key]
	if p == nil {
		p = &packedWeight{}
		p.lo, p.hi = memory(w)
		e.dev.packs[key] = p
	}
	k, n := l.In, l.Out
	if grad {
		k, n = l.Out, l.In
	}
	dst := packedElements[F](p, e.packedLen(k, n))
	if !p.fresh {
		e.pack(dst, w, l.In, k, n, !grad)
		p.fresh = true
	}
	return dst
}

func packedElements[F Float](p *packedWeight, n int) []F {
	var f F
	if unsafe.Sizeof(f) == 8 {
		if p.f64 == nil {
			p.f64 = aligned[float64](n)
		}
		return unsafe.Slice((*F)(unsafe.Pointer(unsafe.SliceData(p.f64))), n)
	}
	if p.f32 == nil {
		p.f32 = aligned[float32](n)
	}
	return unsafe.Slice((*F)(unsafe.Pointer(unsafe.SliceData(p.f32))), n)
}

// checkLinear checks the sides of a linear map and returns its rows; out is named after the operand.
func checkLinear[F Float](inName string, in []F, outName string, out []F, l gpu.Linear) (rows int, err error) {
	if l.In <= 0 || l.Out <= 0 {
		return 0, fmt.Errorf("the map is %d → %d", l.In, l.Out)
	}
	if rows, err = rowsOf(inName, in, l.In); err != nil {
		return 0, err
	}
	return rows, want(outName, out, rows*l.Out)
}

func (e *engine[F]) linear(y, x gpu.Buffer, l gpu.Linear) error {
	ys, xs, bias := elements[F](y), elements[F](x), elements[F](l.Bias)
	rows, err := checkLinear("x", xs, "y", ys, l)
	if err == nil {
		err = want("the weight", elements[F](l.W), l.In*l.Out)
	}
	if err == nil && l.Bias != nil {
		err = want("the bias", bias, l.Out)
	}
	if err != nil {
		return err
	}
	e.work(2*float64(rows)*float64(l.In)*float64(l.Out), float64(len(xs)+len(ys)+l.In*l.Out))
	e.gemm(gemmJob[F]{c: ys, ldc: l.Out, a: xs, lda: l.In, b: e.weight(l, false), m: rows, n: l.Out, k: l.In, bias: bias})
	return nil
}

func (e *engine[F]) linearGradInput(dx, dy gpu.Buffer, l gpu.Linear, accumulate bool) error {
	dxs, dys := elements[F](dx), elements[F](dy)
	rows, err := checkLinear("dx", dxs, "dy", dys, l)
	if err == nil {
		err = want("the weight", elements[F](l.W), l.In*l.Out)
	}
	if err != nil {
		return err
	}
	e.work(2*float64(rows)*float64(l.In)*float64(l.Out), float64(len(dxs)+len(dys)+l.In*l.Out))
	e.gemm(gemmJob[F]{c: dxs, ldc: l.In, a: dys, lda: l.Out, b: e.weight(l, true), m: rows, n: l.In, k: l.Out, acc: accumulate})
	return nil
}

func (e *engine[F]) linearGradWeight(dw, dbias, dy, x gpu.Buffer, l gpu.Linear) error {
	dws, dys, xs := elements[F](dw), elements[F](dy), elements[F](x)
	rows, err := checkLinear("x", xs, "dy", dys, l)
	if err == nil {
		err = want("dw", dws, l.In*l.Out)
	}
	if err == nil && dbias != nil {
		err = want("dbias", elements[F](dbias), l.Out)
	}
	if err != nil {
		return err
	}
	e.work(2*float64(rows)*float64(l.In)*float64(l.Out), float64(len(xs)+len(dys)+2*l.In*l.Out))
	e.gradWeight(dws, dys, xs, rows, l.In, l.Out)
	if dbias != nil {
		j := &e.jobs.bias
		*j = biasGradJob[F]{e: e, dbias: elements[F](dbias), dy: dys, rows: rows, out: l.Out}
		e.dev.pool.run(j, ceil(l.Out, biasColumns))
	}
	return nil
}

// gradWeight: dw [out,in] += dyᵀ x.
func (e *engine[F]) gradWeight(dw, dy, x []F, rows, in, out int) {
	if rows == 0 {
		return
	}
	b := e.common(e.packedLen(rows, in))
	// Gradients of several weights of one input follow each other (q, k and v; gate and up): then x is packed still.
	p := &e.scope.packed
	if again := p.x == &x[0] && p.rows == rows && p.in == in && p.op+1 == e.dev.ops; !again {
		e.pack(b, x, in, rows, in, false)
	}
	p.x, p.rows, p.in, p.op = &x[0], rows, in, e.dev.ops
	e.gemm(gemmJob[F]{c: dw, ldc: in, a: dy, lda: out, cols: true, b: b, m: out, n: in, k: rows, acc: true})
}

// biasColumns is how many columns a part of a bias gradient sums.
const biasColumns = 64

type biasGradJob[F Float] struct {
	e         *engine[F]
	dbias, dy []F
	rows, out int
}

func (j *biasGradJob[F]) part(_, i int) {
	c0 := i * biasColumns
	c1 := min(c0+biasColumns, j.out)
	for t := range j.rows {
		j.e.plus(j.dbias[c0:c1], j.dy[t*j.out+c0:t*j.out+c1])
	}
}
