package cuda

import "github.com/longalign/longalign-go/gpu"

// chunkLogits bounds the logits that exist at once; the rows of a chunk are a multiple of chunkRows where there are enough.
const (
	chunkLogits = 1 << 26
	chunkRows   = 128
)

// CrossEntropy is the fused head and loss; tokens without a target cost nothing. The logits of a chunk are float32, their
// gradient has the model's type and holds the coefficients, so that both products of the gradient take it as it is.
func (d *Device) CrossEntropy(nll []float64, dh, dw, h gpu.Buffer, head gpu.Linear, targets []int32, coef []float64) {
	o := d.begin("CrossEntropy")
	defer o.end()
	bh := o.have("h", h)
	width, vocab := head.In, head.Out
	tokens := o.rows("h", bh, width)
	w := o.want("the weight", head.W, width*vocab, bh.dtype)
	var bdh, bdw *Buffer
	if dh != nil {
		bdh = o.want("dh", dh, bh.n, bh.dtype)
		if dw != nil {
			bdw = o.want("dw", dw, width*vocab, wide(bh.dtype)...)
		}
	}
	switch {
	case o.failed():
		return
	case head.Bias != nil:
		o.refuse("the head has a bias, which is not supported")
	case len(nll) != tokens || len(targets) != tokens || dh != nil && len(coef) != tokens:
		o.refuse("%d tokens, but %d nll, %d targets, %d coef", tokens, len(nll), len(targets), len(coef))
	}
	var rows, wanted []int32
	var factors []float32
	for t, y := range targets {
		if o.failed() {
			return
		}
		nll[t] = 0
		switch {
		case y >= int32(vocab):
			o.refuse("token %d has target %d, the vocabulary %d entries", t, y, vocab)
		case y >= 0:
			rows, wanted = append(rows, int32(t)), append(wanted, y)
			if bdh != nil {
				factors = append(factors, float32(coef[t]))
			}
		}
	}
	if o.failed() {
		return
	}
	if bdh != nil && bdh.n > 0 {
		o.try(d.m.zero(bdh.address, bdh.bytes()))
	}
	if len(rows) == 0 {
		return
	}
	products := 1.
	for _, b := range []*Buffer{bdh, bdw} {
		if b != nil {
			products++
		}
	}
	o.work(products*2*float64(len(rows))*float64(width)*float64(vocab), products*float64(bh.dtype.Size())*(float64(len(rows)*width)+float64(width*vocab)))
	losses := o.crossEntropy(bdh, bdw, bh, w, width, vocab, rows, wanted, factors)
	for i, t := range rows {
		if o.failed() {
			return
		}
		nll[t] = float64(losses[i])
	}
}

// crossEntropy runs the rows that have targets, chunk by chunk.
func (o *operation) crossEntropy(dh, dw, h, w *Buffer, width, vocab int, rows, targets []int32, coef []float32) []float32 {
	t, size := h.dtype, h.dtype.Size()
	chunk := min(len(rows), max(chunkRows, chunkLogits/vocab/chunkRows*chunkRows))
	logits := o.scratch("logits", 4*chunk*vocab)
	gathered := o.scratch("gathered rows", size*chunk*width)
	var grad, out, coefs uint64
	if dh != nil {
		grad, out = logits, o.scratch("gradient rows", size*chunk*width)
		if t != gpu.Float32 {
			grad = o.scratch("gradient of logits", size*chunk*vocab)
		}
		if coefs = o.scratch("coefficients", 4*len(rows)); !o.failed() {
			o.try(o.d.m.upload(coefs, memoryBytes(coef)))
		}
	}
	losses := make([]float32, len(rows))
	onDevice := o.scratch("losses", 4*len(rows))
	places, wanted := o.ints("target rows", rows), o.ints("targets", targets)
	for from := 0; from < len(rows) && !o.failed(); from += chunk {
		m, at := min(chunk, len(rows)-from), uint64(4*from)
		o.gather(gathered, h.address, places+at, m, width, t, aligned(width, h))
		o.multiply(product{c: logits, a: operand{gathered, width, 1}, b: operand{w.address, width, 1}, m: m, n: vocab, k: width, in: t, out: gpu.Float32})
		launch(o, "cross_entropy", "T="+element(t), over(m), 512, 128, struct {
			grad, nll, logits, targets, coef uint64
			vocab, wide                      int32
		}{grad, onDevice + at, logits, wanted + at, coefs + at, int32(vocab), aligned(vocab)})
		if dh == nil {
			continue
		}
		o.multiply(product{c: out, a: operand{grad, vocab, 1}, b: operand{w.address, 1, width}, m: m, n: width, k: vocab, in: t, out: t})
		launch(o, "scatter", "T="+element(t), over(m), 128, 0, struct {
			y, x, rows uint64
			d, wide    int32
		}{dh.address, out, places + at, int32(width), aligned(width, dh)})
		if dw != nil {
			o.multiply(product{c: dw.address, a: operand{grad, 1, vocab}, b: operand{gathered, 1, width}, m: vocab, n: width, k: m, in: t, out: dw.dtype, accumulate: true})
		}
	}
	if !o.failed() {
		o.try(o.d.m.download(memoryBytes(losses), onDevice))
	}
	return losses
}
