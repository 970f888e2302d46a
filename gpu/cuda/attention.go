package cuda

import (
	"cmp"
	"slices"

	"github.com/longalign/longalign-go/gpu"
)

const (
	tileRows = 64  // queries or keys of a block of the matrix kernels
	maxWidth = 256 // of a head, in the kernels for any width
	// fewQueries is the number of new tokens from which the matrix kernel pays: below, most of its tile would be empty.
	fewQueries = 8
)

// heads checks a shape against the width of the queries.
func (o *operation) heads(s gpu.AttentionShape) {
	switch {
	case o.failed():
	case s.Heads < 1 || s.KVHeads < 1 || s.Heads%s.KVHeads != 0:
		o.refuse("%d heads over %d key heads; the second must divide the first", s.Heads, s.KVHeads)
	case s.HeadDim < 1 || s.HeadDim > maxWidth:
		o.refuse("a head width of %d; at most %d are supported", s.HeadDim, maxWidth)
	case s.Window < 0:
		o.refuse("a window of %d", s.Window)
	}
}

func (o *operation) sequences(cu []int32, tokens int) {
	if o.failed() {
		return
	}
	if len(cu) < 2 || cu[0] != 0 || int(cu[len(cu)-1]) != tokens || !slices.IsSorted(cu) {
		o.refuse("sequence bounds %v do not rise from 0 to the %d tokens", cu, tokens)
	}
}

// matrixUnits reports whether the kernels of the matrix units serve these operands.
func matrixUnits(s gpu.AttentionShape, bs ...*Buffer) bool {
	for _, b := range bs {
		if b.dtype != gpu.BFloat16 || b.address%16 != 0 {
			return false
		}
	}
	return s.HeadDim == 64 || s.HeadDim == 128
}

func width(s gpu.AttentionShape) string {
	if s.HeadDim == 64 {
		return "D=64"
	}
	return "D=128"
}

// tiles lists blocks of rows by sequence, those with the most work first. Late queries see many keys, early keys many queries.
func tiles(cu []int32, rows int32, late bool) []int32 {
	type tile struct{ sequence, first, work int32 }
	var all []tile
	for s := range len(cu) - 1 {
		n := cu[s+1] - cu[s]
		for at := int32(0); at < n; at += rows {
			t := tile{int32(s), at, at}
			if !late {
				t.work = n - at
			}
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(a, b tile) int { return cmp.Compare(b.work, a.work) })
	flat := make([]int32, 0, 2*len(all))
	for _, t := range all {
		flat = append(flat, t.sequence, t.first)
	}
	return flat
}

// attend runs the forward pass; cuq and cuk bound the queries and keys of each sequence.
func (o *operation) attend(y, q, k, v *Buffer, lse uint64, cuq, cuk []int32, s gpu.AttentionShape, matrix bool) {
	if o.failed() || y.n == 0 {
		return
	}
	tokens := cuq[len(cuq)-1]
	var pairs float64
	for i := range len(cuq) - 1 {
		n, m := float64(cuk[i+1]-cuk[i]), float64(cuq[i+1]-cuq[i])
		pairs += m * (n - m/2)
	}
	o.work(4*pairs*float64(s.Heads*s.HeadDim), float64(y.bytes()+q.bytes()+k.bytes()+v.bytes()))
	bounds, keyBounds := o.ints("query bounds", cuq), o.ints("key bounds", cuk)
	if matrix && o.d.hopper {
		o.attendHopper(y, q, k, v, lse, bounds, keyBounds, cuq, cuk, s)
		return
	}
	if matrix {
		list := tiles(cuq, tileRows, true)
		launch(o, "attention", width(s), [3]int{len(list) / 2, s.Heads, 1}, 128, 5*tileRows*s.HeadDim*2, struct {
			y, lse, q, k, v, cuq, cuk, tiles uint64
			tokens, heads, kvheads, window   int32
			scale                            float32
		}{y.address, lse, q.address, k.address, v.address, bounds, keyBounds, o.ints("query tiles", list), tokens, int32(s.Heads), int32(s.KVHeads), int32(s.Window), float32(s.Scale)})
		return
	}
	const warps = 4
	launch(o, "attention_rows", "T="+q.element(), [3]int{int(tokens), s.Heads, 1}, 32*warps, (s.HeadDim+warps*(s.HeadDim+2))*4, struct {
		y, lse, q, k, v, cuq, cuk                    uint64
		sequences, tokens, heads, kvheads, e, window int32
		scale                                        float32
	}{y.address, lse, q.address, k.address, v.address, bounds, keyBounds, int32(len(cuq) - 1), tokens, int32(s.Heads), int32(s.KVHeads), int32(s.HeadDim), int32(s.Window), float32(s.Scale)})
}

// Attention is block-diagonal and causal.
func (d *Device) Attention(y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) {
	o := d.begin("Attention")
	defer o.end()
	o.heads(s)
	bq := o.have("q", q)
	tokens := o.rows("q", bq, s.Heads*s.HeadDim)
	bk, bv := o.want("k", k, tokens*s.KVHeads*s.HeadDim, bq.dtype), o.want("v", v, tokens*s.KVHeads*s.HeadDim, bq.dtype)
	by, l := o.want("y", y, bq.n, bq.dtype), o.want("lse", lse, tokens*s.Heads, gpu.Float32)
	o.sequences(s.CuSeqlens, tokens)
	o.attend(by, bq, bk, bv, l.address, s.CuSeqlens, s.CuSeqlens, s, matrixUnits(s, by, bq, bk, bv))
}

// AttentionCached attends from n new tokens to a cache.
func (d *Device) AttentionCached(y, q, k, v gpu.Buffer, n, length int, s gpu.AttentionShape) {
	o := d.begin("AttentionCached")
	defer o.end()
	o.heads(s)
	bq := o.have("q", q)
	bq = o.want("q", q, n*s.Heads*s.HeadDim, bq.dtype)
	by, bk := o.want("y", y, bq.n, bq.dtype), o.have("k", k)
	capacity := o.rows("k", bk, s.KVHeads*s.HeadDim)
	bk, bv := o.want("k", k, bk.n, bq.dtype), o.want("v", v, bk.n, bq.dtype)
	if !o.failed() && (n < 1 || n > length || length > capacity) {
		o.refuse("%d new tokens of %d in a cache of %d", n, length, capacity)
	}
	if n < fewQueries {
		seen := length
		if s.Window > 0 {
			seen = min(length, s.Window+n-1)
		}
		o.work(4*float64(n*s.Heads*seen*s.HeadDim), float64(2*seen*s.KVHeads*s.HeadDim*bk.dtype.Size()+by.bytes()+bq.bytes()))
		o.decode(by, bq, cachedRows{bk.address, bv.address, int32(length), 0}, 0, []*Buffer{bk, bv}, n, 1, capacity, s)
		return
	}
	o.attend(by, bq, bk, bv, 0, []int32{0, int32(n)}, []int32{0, int32(length)}, s, matrixUnits(s, by, bq, bk, bv))
}

// AttentionGrad writes dq, dk and dv.
func (d *Device) AttentionGrad(dq, dk, dv, dy, y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) {
	o := d.begin("AttentionGrad")
	defer o.end()
	o.heads(s)
	bq := o.have("q", q)
	tokens := o.rows("q", bq, s.Heads*s.HeadDim)
	nk := tokens * s.KVHeads * s.HeadDim
	bk, bv := o.want("k", k, nk, bq.dtype), o.want("v", v, nk, bq.dtype)
	by, bdy := o.want("y", y, bq.n, bq.dtype), o.want("dy", dy, bq.n, bq.dtype)
	bdq, bdk, bdv := o.want("dq", dq, bq.n, bq.dtype), o.want("dk", dk, nk, bq.dtype), o.want("dv", dv, nk, bq.dtype)
	l := o.want("lse", lse, tokens*s.Heads, gpu.Float32)
	o.sequences(s.CuSeqlens, tokens)
	if o.failed() || tokens == 0 { // a tensor of no tokens is nothing that a driver describes
		return
	}
	var pairs float64
	for i := range len(s.CuSeqlens) - 1 {
		n := float64(s.CuSeqlens[i+1] - s.CuSeqlens[i])
		pairs += n * n / 2
	}
	o.work(10*pairs*float64(s.Heads*s.HeadDim), float64(4*bq.bytes()+4*bk.bytes()))
	delta := o.scratch("delta", 4*tokens*s.Heads)
	lanes := 1
	for lanes*8 < s.HeadDim {
		lanes *= 2
	}
	launch(o, "attention_delta", "T="+bq.element(), over(ceil(tokens*s.Heads*lanes, 128)), 128, 0, struct {
		delta, dy, y                  uint64
		tokens, heads, e, lanes, wide int32
		_                             int32
	}{delta, bdy.address, by.address, int32(tokens), int32(s.Heads), int32(s.HeadDim), int32(lanes), aligned(s.HeadDim, bdy, by), 0})
	cu := o.ints("query bounds", s.CuSeqlens)
	matrix := matrixUnits(s, bdq, bdk, bdv, bdy, bq, bk, bv)
	if matrix && o.d.hopper {
		o.attendGradHopper(bdq, bdk, bdv, bdy, bq, bk, bv, l.address, delta, cu, tokens, s)
		return
	}
	if matrix {
		o.attendGrad(bdq, bdk, bdv, bdy, bq, bk, bv, l.address, delta, cu, tokens, s)
		return
	}
	launch(o, "attention_rows_grad_q", "T="+bq.element(), [3]int{tokens, s.Heads, 1}, 32, 8*s.HeadDim, struct {
		dq, dy, q, k, v, lse, delta, cu              uint64
		sequences, tokens, heads, kvheads, e, window int32
		scale                                        float32
	}{bdq.address, bdy.address, bq.address, bk.address, bv.address, l.address, delta, cu, int32(len(s.CuSeqlens) - 1), int32(tokens), int32(s.Heads), int32(s.KVHeads), int32(s.HeadDim), int32(s.Window), float32(s.Scale)})
	launch(o, "attention_rows_grad_kv", "T="+bq.element(), [3]int{tokens, s.KVHeads, 1}, 32, 8*s.HeadDim, struct {
		dk, dv, dy, q, k, v, lse, delta, cu          uint64
		sequences, tokens, heads, kvheads, e, window int32
		scale                                        float32
	}{bdk.address, bdv.address, bdy.address, bq.address, bk.address, bv.address, l.address, delta, cu, int32(len(s.CuSeqlens) - 1), int32(tokens), int32(s.Heads), int32(s.KVHeads), int32(s.HeadDim), int32(s.Window), float32(s.Scale)})
}

// attendGrad is the gradient on the matrix units.
func (o *operation) attendGrad(dq, dk, dv, dy, q, k, v *Buffer, lse, delta, cu uint64, tokens int, s gpu.AttentionShape) {
	list := tiles(s.CuSeqlens, tileRows, true)
	launch(o, "attention_grad_q", width(s), [3]int{len(list) / 2, s.Heads, 1}, 128, 4*tileRows*s.HeadDim*2, struct {
		dq, dy, q, k, v, lse, delta, cu, tiles uint64
		tokens, heads, kvheads, window         int32
		scale                                  float32
	}{dq.address, dy.address, q.address, k.address, v.address, lse, delta, cu, o.ints("query tiles", list), int32(tokens), int32(s.Heads), int32(s.KVHeads), int32(s.Window), float32(s.Scale)})
	queries := 64 // of QUERIES in the kernel
	if s.HeadDim == 128 {
		queries = 32
	}
	list = tiles(s.CuSeqlens, tileRows, false)
	launch(o, "attention_grad_kv", width(s), [3]int{len(list) / 2, s.KVHeads, 1}, 128, 2*(tileRows+queries)*s.HeadDim*2+2*queries*4, struct {
		dk, dv, dy, q, k, v, lse, delta, cu, tiles uint64
		tokens, heads, kvheads, window             int32
		scale                                      float32
	}{dk.address, dv.address, dy.address, q.address, k.address, v.address, lse, delta, cu, o.ints("key tiles", list), int32(tokens), int32(s.Heads), int32(s.KVHeads), int32(s.Window), float32(s.Scale)})
}
