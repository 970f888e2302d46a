package cuda

import (
	"math"

	"github.com/longalign/longalign-go/gpu"
)

// operand is a matrix of a product: element (i, k) is at i·rows + k·steps, one of which is 1.
type operand struct {
	address     uint64
	rows, steps int
}

// product is c[m,n] = Σ_k a(m,k) b(n,k) + bias[n], or added to c, which is dense.
type product struct {
	c          uint64
	a, b       operand
	bias       uint64
	m, n, k    int
	in, out    gpu.DType // of a, b and bias; of c
	accumulate bool
}

// multiply queues p.
func (o *operation) multiply(p product) {
	if o.failed() || p.m == 0 || p.n == 0 {
		return
	}
	if max(p.m, p.n, p.k) > math.MaxInt32 {
		o.refuse("a product of %d × %d × %d; no side may exceed %d", p.m, p.n, p.k, math.MaxInt32)
		return
	}
	theirs, err := o.d.m.multiplies(p)
	if theirs && err == nil {
		err = o.d.m.multiply(p)
	}
	if o.try(err); theirs || err != nil {
		return
	}
	kernel, defines, threads, shared := "gemm_f32", "", 256, 2*16*68*4
	if p.in == gpu.BFloat16 {
		kernel, defines, threads, shared = "gemm_bf16", "W="+element(p.out), 128, 2*64*40*2
	}
	add := int32(0)
	if p.accumulate {
		add = 1
	}
	launch(o, kernel, defines, [3]int{ceil(p.n, 64), ceil(p.m, 64), 1}, threads, shared, struct {
		c, a, b, bias                uint64
		aRows, aSteps, bRows, bSteps int64
		m, n, k, ldc, accumulate     int32
	}{p.c, p.a.address, p.b.address, p.bias, int64(p.a.rows), int64(p.a.steps), int64(p.b.rows), int64(p.b.steps), int32(p.m), int32(p.n), int32(p.k), int32(p.n), add})
}

// weights returns the weight and bias of l for inputs like x.
func (o *operation) weights(l gpu.Linear, t gpu.DType) (w *Buffer, bias uint64) {
	w = o.want("the weight", l.W, l.In*l.Out, t)
	if l.Bias != nil {
		bias = o.want("the bias", l.Bias, l.Out, t).address
	}
	return w, bias
}

func (o *operation) productWork(p product) {
	s := float64(p.in.Size())
	o.work(2*float64(p.m)*float64(p.n)*float64(p.k), s*(float64(p.m)*float64(p.k)+float64(p.n)*float64(p.k))+float64(p.out.Size())*float64(p.m)*float64(p.n))
}

// Linear computes y = x wᵀ + bias.
func (d *Device) Linear(y, x gpu.Buffer, l gpu.Linear) {
	o := d.begin("Linear")
	defer o.end()
	bx := o.have("x", x)
	rows := o.rows("x", bx, l.In)
	w, bias := o.weights(l, bx.dtype)
	by := o.want("y", y, rows*l.Out, bx.dtype)
	p := product{c: by.address, a: operand{bx.address, l.In, 1}, b: operand{w.address, l.In, 1}, bias: bias, m: rows, n: l.Out, k: l.In, in: bx.dtype, out: bx.dtype}
	o.productWork(p)
	o.multiply(p)
}

// LinearGradInput computes dx = dy w, or adds it.
func (d *Device) LinearGradInput(dx, dy gpu.Buffer, l gpu.Linear, accumulate bool) {
	o := d.begin("LinearGradInput")
	defer o.end()
	bdy := o.have("dy", dy)
	rows := o.rows("dy", bdy, l.Out)
	w := o.want("the weight", l.W, l.In*l.Out, bdy.dtype)
	bdx := o.want("dx", dx, rows*l.In, bdy.dtype)
	p := product{c: bdx.address, a: operand{bdy.address, l.Out, 1}, b: operand{w.address, 1, l.In}, m: rows, n: l.In, k: l.Out, in: bdy.dtype, out: bdy.dtype, accumulate: accumulate}
	o.productWork(p)
	o.multiply(p)
}

// LinearGradWeight adds dyᵀ x to dw and the column sums of dy to dbias.
func (d *Device) LinearGradWeight(dw, dbias, dy, x gpu.Buffer, l gpu.Linear) {
	o := d.begin("LinearGradWeight")
	defer o.end()
	bx := o.have("x", x)
	rows := o.rows("x", bx, l.In)
	bdy := o.want("dy", dy, rows*l.Out, bx.dtype)
	bdw := o.want("dw", dw, l.In*l.Out, wide(bx.dtype)...)
	var bias *Buffer
	if dbias != nil {
		bias = o.want("dbias", dbias, l.Out, wide(bx.dtype)...)
	}
	p := product{c: bdw.address, a: operand{bdy.address, 1, l.Out}, b: operand{bx.address, 1, l.In}, m: l.Out, n: l.In, k: rows, in: bx.dtype, out: bdw.dtype, accumulate: true}
	o.productWork(p)
	o.multiply(p)
	if bias != nil {
		o.columnSums(bias, bdy)
	}
}
