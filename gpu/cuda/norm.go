package cuda

import "github.com/longalign/longalign-go/gpu"

// sumRows is how many rows one thread adds up in sums over columns: fixed, so that the order of the sum depends on the shape alone.
const sumRows = 128

// RMSNorm normalises rows.
func (d *Device) RMSNorm(y, rstd, x, w gpu.Buffer, width int, eps float64) {
	o := d.begin("RMSNorm")
	defer o.end()
	bx := o.have("x", x)
	rows := o.rows("x", bx, width)
	by, bw := o.want("y", y, bx.n, bx.dtype), o.want("w", w, width, bx.dtype)
	r := o.want("rstd", rstd, rows, wide(bx.dtype)...)
	o.work(4*float64(bx.n), float64(2*bx.bytes()))
	launch(o, "rms_norm", "T="+bx.element()+" W="+r.element(), over(rows), 256, 128, struct {
		y, rstd, x, w uint64
		d             int32
		eps           float32
		wide          int32
	}{by.address, r.address, bx.address, bw.address, int32(width), float32(eps), aligned(width, by, bx, bw)})
}

// RMSNormGrad adds the gradients of RMSNorm to dx and dw.
func (d *Device) RMSNormGrad(dx, dw, dy, x, w, rstd gpu.Buffer, width int) {
	o := d.begin("RMSNormGrad")
	defer o.end()
	bx := o.have("x", x)
	rows := o.rows("x", bx, width)
	bdx, bdy := o.want("dx", dx, bx.n, bx.dtype), o.want("dy", dy, bx.n, bx.dtype)
	bw, r := o.want("w", w, width, bx.dtype), o.want("rstd", rstd, rows, wide(bx.dtype)...)
	var bdw *Buffer
	if dw != nil {
		bdw = o.want("dw", dw, width, wide(bx.dtype)...)
	}
	o.work(8*float64(bx.n), float64(4*bx.bytes()))
	types := "T=" + bx.element() + " W=" + r.element()
	launch(o, "rms_norm_grad", types, over(rows), 256, 128, struct {
		dx, dy, x, w, rstd uint64
		d, wide            int32
	}{bdx.address, bdy.address, bx.address, bw.address, r.address, int32(width), aligned(width, bdx, bdy, bx, bw)})
	if bdw == nil || o.failed() {
		return
	}
	parts := ceil(rows, sumRows)
	partial := o.scratch("partial sums", 4*parts*width)
	launch(o, "rms_norm_grad_weight", types, [3]int{ceil(width, 8*128), parts, 1}, 128, 0, struct {
		partial, dy, x, rstd uint64
		rows, d, per, wide   int32
	}{partial, bdy.address, bx.address, r.address, int32(rows), int32(width), sumRows, aligned(width, bdy, bx)})
	o.fold(bdw, partial, parts)
}

// fold adds parts rows of partial sums to y, in order.
func (o *operation) fold(y *Buffer, partial uint64, parts int) {
	launch(o, "fold", "W="+y.element(), over(ceil(y.n, 128)), 128, 0, struct {
		y, partial uint64
		parts, d   int32
	}{y.address, partial, int32(parts), int32(y.n)})
}

// columnSums adds the sums of x's columns to y.
func (o *operation) columnSums(y, x *Buffer) {
	if o.failed() {
		return
	}
	rows := x.n / y.n
	parts := ceil(rows, sumRows)
	partial := o.scratch("partial sums", 4*parts*y.n)
	launch(o, "column_sums", "T="+x.element(), [3]int{ceil(y.n, 128), parts, 1}, 128, 0, struct {
		partial, x   uint64
		rows, d, per int32
	}{partial, x.address, int32(rows), int32(y.n), sumRows})
	o.fold(y, partial, parts)
}
