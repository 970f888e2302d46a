package cuda

import (
	"math"
	"slices"

	"github.com/longalign/longalign-go/gpu"
)

// checkIDs refuses ids outside a table of n rows.
func (o *operation) checkIDs(ids []int32, n int) {
	for t, id := range ids {
		if id < 0 || int(id) >= n {
			o.refuse("token %d has id %d, the table %d rows", t, id, n)
			return
		}
	}
}

// Embedding looks up the rows of ids.
func (d *Device) Embedding(y, table gpu.Buffer, ids []int32, width int) {
	o := d.begin("Embedding")
	defer o.end()
	t := o.have("table", table)
	o.checkIDs(ids, o.rows("table", t, width))
	to := o.want("y", y, len(ids)*width, t.dtype)
	o.work(0, float64(2*to.bytes()))
	o.gather(to.address, t.address, o.ints("ids", ids), len(ids), width, t.dtype, aligned(width, to, t))
}

// gather copies n rows of width d.
func (o *operation) gather(y, table, ids uint64, n, d int, t gpu.DType, wide int32) {
	launch(o, "embedding", "T="+element(t), over(n), 128, 0, struct {
		y, table, ids uint64
		d, wide       int32
	}{y, table, ids, int32(d), wide})
}

// EmbeddingGrad adds the rows of dy to those of ids, in order.
func (d *Device) EmbeddingGrad(dtable, dy gpu.Buffer, ids []int32, width int) {
	o := d.begin("EmbeddingGrad")
	defer o.end()
	g := o.have("dy", dy)
	g = o.want("dy", dy, len(ids)*width, g.dtype)
	t := o.have("dtable", dtable)
	t = o.want("dtable", dtable, t.n, wide(g.dtype)...)
	o.checkIDs(ids, o.rows("dtable", t, width))
	if o.failed() {
		return
	}
	order := make([]int32, len(ids))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return int(ids[a]) - int(ids[b]) })
	var distinct, first []int32
	for i, t := range order {
		if i == 0 || ids[t] != ids[order[i-1]] {
			distinct, first = append(distinct, ids[t]), append(first, int32(i))
		}
	}
	first = append(first, int32(len(order)))
	o.work(float64(g.n), float64(g.bytes()+2*len(distinct)*width*t.dtype.Size()))
	launch(o, "embedding_grad", "T="+g.element()+" W="+t.element(), over(len(distinct)), 256, 0, struct {
		dtable, dy, ids, first, order uint64
		d                             int32
	}{t.address, g.address, o.ints("distinct ids", distinct), o.ints("firsts", first), o.ints("order", order), int32(width)})
}

// Rope rotates heads in place.
func (d *Device) Rope(x, cos, sin gpu.Buffer, positions []int32, heads, width, rotary int, layout gpu.Layout, inverse bool) {
	o := d.begin("Rope")
	defer o.end()
	b := o.have("x", x)
	b = o.want("x", x, len(positions)*heads*width, b.dtype)
	if !o.failed() && (rotary < 0 || rotary%2 != 0 || rotary > width) {
		o.refuse("a rotary width of %d in heads of %d; it must be even and fit", rotary, width)
	}
	half := rotary / 2
	if o.failed() || half == 0 {
		return
	}
	c := o.have("cos", cos)
	c = o.want("cos", cos, c.n, wide(b.dtype)...)
	s := o.want("sin", sin, c.n, c.dtype)
	most := o.rows("cos", c, half)
	for t, p := range positions {
		if p < 0 || int(p) >= most {
			o.refuse("token %d has position %d, the tables %d", t, p, most)
			break
		}
	}
	sign := float32(1)
	if inverse {
		sign = -1
	}
	interleaved := int32(0)
	if layout == gpu.Interleaved {
		interleaved = 1
	}
	pairs := len(positions) * heads * half
	wide := aligned(half, b, c, s)
	if width*b.dtype.Size()%16 != 0 {
		wide = 0
	}
	threads := len(positions) * heads * ceil(half, 8)
	o.work(6*float64(pairs), float64(2*b.bytes()))
	launch(o, "rope", "T="+b.element()+" W="+c.element(), over(ceil(threads, 256)), 256, 0, struct {
		x, cos, sin, positions      uint64
		threads                     int64
		heads, e, half, interleaved int32
		sign                        float32
		wide                        int32
	}{b.address, c.address, s.address, o.ints("positions", positions), int64(threads), int32(heads), int32(width), int32(half), interleaved, sign, wide})
}

// SwiGLU computes y = silu(gate) · up.
func (d *Device) SwiGLU(y, gate, up gpu.Buffer) {
	o := d.begin("SwiGLU")
	defer o.end()
	g := o.have("gate", gate)
	u, to := o.want("up", up, g.n, g.dtype), o.want("y", y, g.n, g.dtype)
	o.work(5*float64(g.n), float64(3*g.bytes()))
	launch(o, "swiglu", "T="+g.element(), over(ceil(g.n, 2048)), 256, 0, struct {
		y, gate, up uint64
		n           int64
		wide        int32
	}{to.address, g.address, u.address, int64(g.n), aligned(8, to, g, u)})
}

// SwiGLUGrad writes dgate and dup, which may be gate and up.
func (d *Device) SwiGLUGrad(dgate, dup, dy, gate, up gpu.Buffer) {
	o := d.begin("SwiGLUGrad")
	defer o.end()
	g := o.have("gate", gate)
	u, y := o.want("up", up, g.n, g.dtype), o.want("dy", dy, g.n, g.dtype)
	dg, du := o.want("dgate", dgate, g.n, g.dtype), o.want("dup", dup, g.n, g.dtype)
	o.work(10*float64(g.n), float64(5*g.bytes()))
	launch(o, "swiglu_grad", "T="+g.element(), over(ceil(g.n, 2048)), 256, 0, struct {
		dgate, dup, dy, gate, up uint64
		n                        int64
		wide                     int32
	}{dg.address, du.address, y.address, g.address, u.address, int64(g.n), aligned(8, dg, du, y, g, u)})
}

// Add computes y += x.
func (d *Device) Add(y, x gpu.Buffer) {
	o := d.begin("Add")
	defer o.end()
	to := o.have("y", y)
	from := o.want("x", x, to.n, to.dtype)
	o.work(float64(to.n), float64(3*to.bytes()))
	launch(o, "add", "T="+to.element(), over(ceil(to.n, 2048)), 256, 0, struct {
		y, x uint64
		n    int64
		wide int32
	}{to.address, from.address, int64(to.n), aligned(8, to, from)})
}

// SquaredNorm returns Σ g², or 0 after a failure.
func (d *Device) SquaredNorm(g gpu.Buffer) float64 {
	o := d.begin("SquaredNorm")
	defer o.end()
	b := o.have("g", g)
	if o.failed() || b.n == 0 {
		return 0
	}
	partial := make([]float64, min(1024, ceil(b.n, 2048))) // of the length alone, as the order of the sum
	memory := o.scratch("partial sums", 8*len(partial))
	o.work(2*float64(b.n), float64(b.bytes()))
	launch(o, "squared_norm", "T="+b.element(), over(len(partial)), 256, 256*8, struct {
		partial, g uint64
		n          int64
		wide       int32
	}{memory, b.address, int64(b.n), aligned(8, b)})
	if o.failed() {
		return 0
	}
	o.try(d.m.download(memoryBytes(partial), memory))
	var sum float64
	for _, s := range partial {
		sum += s
	}
	return sum
}

// AdamW updates w, m and v.
func (d *Device) AdamW(w, g, m, v gpu.Buffer, p gpu.AdamW) {
	o := d.begin("AdamW")
	defer o.end()
	bw := o.have("w", w)
	bg, bm, bv := o.want("g", g, bw.n, bw.dtype), o.want("m", m, bw.n, bw.dtype), o.want("v", v, bw.n, bw.dtype)
	if !o.failed() && p.Step < 1 {
		o.refuse("step %d; steps count from 1", p.Step)
	}
	t := float64(p.Step)
	o.work(14*float64(bw.n), float64(7*bw.bytes()))
	launch(o, "adamw", "W="+bw.element(), over(ceil(bw.n, 2048)), 256, 0, struct {
		w, m, v, g                                 uint64
		n                                          int64
		scale, b1, a1, b2, a2, keep, lr, root, eps float32
		wide                                       int32
	}{
		bw.address, bm.address, bv.address, bg.address, int64(bw.n),
		float32(p.GradScale), float32(p.Beta1), float32(1 - p.Beta1), float32(p.Beta2), float32(1 - p.Beta2),
		float32(1 - p.LR*p.WeightDecay), float32(p.LR / (1 - math.Pow(p.Beta1, t))), float32(1 / math.Sqrt(1-math.Pow(p.Beta2, t))), float32(p.Eps),
		aligned(8, bw, bg, bm, bv),
	})
}
