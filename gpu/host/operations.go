package host

import "github.com/longalign/longalign-go/gpu"

// Copy copies src to dst.
func (d *Device) Copy(dst, src gpu.Buffer) {
	if e := d.start("Copy", dst, src); e != nil {
		d.finish("Copy", e.copyTo(dst, src))
		d.wrote(dst)
	}
}

// Zero clears x.
func (d *Device) Zero(x gpu.Buffer) {
	if h, ok := x.(*Buffer); ok && h != nil && (h.home.host || h.dtype == gpu.UInt8) {
		if d.startMemory("Zero", x) {
			clear(h.Bytes())
			d.finish("Zero", nil)
		}
		return
	}
	if e := d.start("Zero", x); e != nil {
		d.finish("Zero", e.zero(x))
		d.wrote(x)
	}
}

func (d *Device) wrote(b gpu.Buffer) {
	if h, ok := b.(*Buffer); ok {
		d.packs.written(h)
	}
}

// Embedding looks up the rows of ids.
func (d *Device) Embedding(y, table gpu.Buffer, ids []int32, width int) {
	if e := d.start("Embedding", y, table); e != nil {
		d.finish("Embedding", e.embedding(y, table, ids, width))
	}
}

// EmbeddingGrad adds the rows of dy to those of ids, in order.
func (d *Device) EmbeddingGrad(dtable, dy gpu.Buffer, ids []int32, width int) {
	if e := d.start("EmbeddingGrad", dtable, dy); e != nil {
		d.finish("EmbeddingGrad", e.embeddingGrad(dtable, dy, ids, width))
	}
}

// RMSNorm normalises rows.
func (d *Device) RMSNorm(y, rstd, x, w gpu.Buffer, width int, eps float64) {
	if e := d.start("RMSNorm", y, rstd, x, w); e != nil {
		d.finish("RMSNorm", e.rmsNorm(y, rstd, x, w, width, eps))
	}
}

// RMSNormGrad adds the gradients of RMSNorm to dx and dw.
func (d *Device) RMSNormGrad(dx, dw, dy, x, w, rstd gpu.Buffer, width int) {
	if e := d.start("RMSNormGrad", dx, dw, dy, x, w, rstd); e != nil {
		d.finish("RMSNormGrad", e.rmsNormGrad(dx, dw, dy, x, w, rstd, width))
	}
}

// Linear computes y = x wᵀ + bias.
func (d *Device) Linear(y, x gpu.Buffer, l gpu.Linear) {
	if e := d.start("Linear", y, x, l.W, l.Bias); e != nil {
		d.finish("Linear", e.linear(y, x, l))
	}
}

// LinearGradInput computes dx = dy w, or adds it.
func (d *Device) LinearGradInput(dx, dy gpu.Buffer, l gpu.Linear, accumulate bool) {
	if e := d.start("LinearGradInput", dx, dy, l.W); e != nil {
		d.finish("LinearGradInput", e.linearGradInput(dx, dy, l, accumulate))
	}
}

// LinearGradWeight adds dyᵀ x to dw and the column sums of dy to dbias.
func (d *Device) LinearGradWeight(dw, dbias, dy, x gpu.Buffer, l gpu.Linear) {
	if e := d.start("LinearGradWeight", dw, dbias, dy, x); e != nil {
		d.finish("LinearGradWeight", e.linearGradWeight(dw, dbias, dy, x, l))
	}
}

// Rope rotates heads in place.
func (d *Device) Rope(x, cos, sin gpu.Buffer, positions []int32, heads, width, rotary int, layout gpu.Layout, inverse bool) {
	if e := d.start("Rope", x, cos, sin); e != nil {
		d.finish("Rope", e.rope(x, cos, sin, positions, heads, width, rotary, layout, inverse))
	}
}

// Attention is block-diagonal and causal.
func (d *Device) Attention(y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) {
	if e := d.start("Attention", y, lse, q, k, v); e != nil {
		d.finish("Attention", e.attention(y, lse, q, k, v, s))
	}
}

// AttentionGrad writes dq, dk and dv.
func (d *Device) AttentionGrad(dq, dk, dv, dy, y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) {
	if e := d.start("AttentionGrad", dq, dk, dv, dy, y, lse, q, k, v); e != nil {
		d.finish("AttentionGrad", e.attentionGrad(dq, dk, dv, dy, y, lse, q, k, v, s))
	}
}

// AttentionCached attends from n new tokens to a cache.
func (d *Device) AttentionCached(y, q, k, v gpu.Buffer, n, length int, s gpu.AttentionShape) {
	if e := d.start("AttentionCached", y, q, k, v); e != nil {
		d.finish("AttentionCached", e.attentionCached(y, q, k, v, n, length, s))
	}
}

// AttentionStep appends to caches and attends to them, sequence by sequence: on the host one has work enough for all threads.
func (d *Device) AttentionStep(y, q, k, v gpu.Buffer, caches []gpu.CachedRows, s gpu.AttentionShape) {
	if d.err != nil {
		return
	}
	if err := gpu.CheckStep(y, q, k, v, caches, s); err != nil {
		d.fail("AttentionStep", err)
		return
	}
	hq, hk := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	for i, c := range caches {
		at := (c.Length - 1) * hk
		d.Copy(c.Keys.Slice(at, at+hk), k.Slice(i*hk, (i+1)*hk))
		d.Copy(c.Values.Slice(at, at+hk), v.Slice(i*hk, (i+1)*hk))
		d.AttentionCached(y.Slice(i*hq, (i+1)*hq), q.Slice(i*hq, (i+1)*hq), c.Keys, c.Values, 1, c.Length, s)
	}
}

// SwiGLU computes y = silu(gate) · up.
func (d *Device) SwiGLU(y, gate, up gpu.Buffer) {
	if e := d.start("SwiGLU", y, gate, up); e != nil {
		d.finish("SwiGLU", e.swiglu(y, gate, up))
	}
}

// SwiGLUGrad writes dgate and dup, which may be gate and up.
func (d *Device) SwiGLUGrad(dgate, dup, dy, gate, up gpu.Buffer) {
	if e := d.start("SwiGLUGrad", dgate, dup, dy, gate, up); e != nil {
		d.finish("SwiGLUGrad", e.swigluGrad(dgate, dup, dy, gate, up))
	}
}

// Add computes y += x.
func (d *Device) Add(y, x gpu.Buffer) {
	if e := d.start("Add", y, x); e != nil {
		d.finish("Add", e.add(y, x))
	}
}

// CrossEntropy is the fused head and loss; tokens without a target cost nothing.
func (d *Device) CrossEntropy(nll []float64, dh, dw, h gpu.Buffer, head gpu.Linear, targets []int32, coef []float64) {
	if e := d.start("CrossEntropy", dh, dw, h, head.W, head.Bias); e != nil {
		d.finish("CrossEntropy", e.crossEntropy(nll, dh, dw, h, head, targets, coef))
	}
}

// SquaredNorm returns Σ g², or 0 after a failure.
func (d *Device) SquaredNorm(g gpu.Buffer) float64 {
	e := d.start("SquaredNorm", g)
	if e == nil {
		return 0
	}
	sum, err := e.squaredNorm(g)
	d.finish("SquaredNorm", err)
	return sum
}

// AdamW updates w, m and v.
func (d *Device) AdamW(w, g, m, v gpu.Buffer, p gpu.AdamW) {
	if e := d.start("AdamW", w, g, m, v); e != nil {
		d.finish("AdamW", e.adamw(w, g, m, v, p))
		d.wrote(w)
	}
}
