package cuda

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// hopperRows is the queries, or keys, of a block of the Hopper kernels, and of a box of their tiles but in the gradient of keys.
const hopperRows = 128

// tensor is a matrix of bfloat16 [tokens, heads, width] that the copy engine reads in boxes of rows tokens by 64 columns of a head,
// swizzled by 128 bytes.
type tensor struct {
	address                    uint64
	width, heads, tokens, rows int
}

// tensorMap is a tensor as the copy engine wants it. A kernel's arguments that hold some take a multiple of 128 bytes.
type tensorMap [16]uint64

func (o *operation) tensorMap(b *Buffer, heads, width, tokens, rows int) (m tensorMap) {
	if o.failed() {
		return m
	}
	m, err := o.d.m.tensorMap(tensor{b.address, width, heads, tokens, rows})
	o.try(err)
	return m
}

// attendHopper runs the forward pass on Hopper's matrix units.
func (o *operation) attendHopper(y, q, k, v *Buffer, lse, bounds, keyBounds uint64, cuq, cuk []int32, s gpu.AttentionShape) {
	tokens, keys := int(cuq[len(cuq)-1]), int(cuk[len(cuk)-1])
	list := tiles(cuq, hopperRows, true)
	launch(o, "hopper_attention", width(s), [3]int{len(list) / 2, s.Heads, 1}, 384, 5*hopperRows*s.HeadDim*2+128, struct {
		q, k, v                        tensorMap
		y, lse, cuq, cuk, tiles        uint64
		tokens, heads, kvheads, window int32
		scale                          float32
		_                              [17]int32
	}{
		q: o.tensorMap(q, s.Heads, s.HeadDim, tokens, hopperRows), k: o.tensorMap(k, s.KVHeads, s.HeadDim, keys, hopperRows), v: o.tensorMap(v, s.KVHeads, s.HeadDim, keys, hopperRows),
		y: y.address, lse: lse, cuq: bounds, cuk: keyBounds, tiles: o.ints("query tiles of Hopper", list),
		tokens: int32(tokens), heads: int32(s.Heads), kvheads: int32(s.KVHeads), window: int32(s.Window), scale: float32(s.Scale),
	})
}

// fastBytes bounds the sums of dq that exist at once in fast mode; they are float32. Info takes them off the memory there is.
const fastBytes = 256 << 20

// attendGradHopper is the gradient on Hopper's matrix units. In fast mode the blocks of keys add to dq in any order, but where the sums
// of one head of keys alone exceed fastBytes.
func (o *operation) attendGradHopper(dq, dk, dv, dy, q, k, v *Buffer, lse, delta, cu uint64, tokens int, s gpu.AttentionShape) {
	group := s.Heads / s.KVHeads
	atOnce, fast := fastHeads(tokens, s)
	at := tensorMaps{o: o, s: s, tokens: tokens}
	if !o.d.fast || atOnce == 0 {
		atOnce, fast = s.KVHeads, 0
		list := tiles(s.CuSeqlens, hopperRows, true)
		launch(o, "hopper_attention_grad_q", width(s), [3]int{len(list) / 2, s.Heads, 1}, 384, 6*hopperRows*s.HeadDim*2+128, struct {
			q, dy, k, v                    tensorMap
			dq, lse, delta, cu, tiles      uint64
			tokens, heads, kvheads, window int32
			scale                          float32
			_                              [17]int32
		}{
			q: at.queries(q, hopperRows), dy: at.queries(dy, hopperRows), k: at.keys(k), v: at.keys(v),
			dq: dq.address, lse: lse, delta: delta, cu: cu, tiles: o.ints("query tiles of Hopper", list),
			tokens: int32(tokens), heads: int32(s.Heads), kvheads: int32(s.KVHeads), window: int32(s.Window), scale: float32(s.Scale),
		})
	}
	const queries = 64 // at a time in the kernel
	list := tiles(s.CuSeqlens, hopperRows, false)
	for first := 0; first < s.KVHeads; first += atOnce {
		some := min(atOnce, s.KVHeads-first)
		sums, n := uint64(0), tokens*some*group*s.HeadDim
		if fast == 1 {
			sums = o.scratch("sums of dq", 4*tokens*atOnce*group*s.HeadDim)
			if !o.failed() {
				o.try(o.d.m.zero(sums, 4*n))
			}
		}
		launch(o, "hopper_attention_grad_kv", fmt.Sprintf("%s FAST=%d", width(s), fast), [3]int{len(list) / 2, some, 1}, 384,
			2*hopperRows*s.HeadDim*2+4*queries*s.HeadDim*2+fast*hopperRows*queries*2+4*queries*4+128, struct {
				q, dy, k, v                      tensorMap
				dk, dv, dq, lse, delta, cu, list uint64
				tokens, heads, kvheads, window   int32
				scale                            float32
				first                            int32
				_                                [12]int32
			}{
				q: at.queries(q, queries), dy: at.queries(dy, queries), k: at.keys(k), v: at.keys(v),
				dk: dk.address, dv: dv.address, dq: sums, lse: lse, delta: delta, cu: cu, list: o.ints("key tiles of Hopper", list),
				tokens: int32(tokens), heads: int32(s.Heads), kvheads: int32(s.KVHeads), window: int32(s.Window), scale: float32(s.Scale), first: int32(first),
			})
		if fast == 1 {
			launch(o, "attention_gather_q", "", over(ceil(n, 2048)), 256, 0, struct {
				dq, sum               uint64
				n                     int64
				heads, some, first, e int32
				scale                 float32
				_                     int32
			}{dq.address, sums, int64(n), int32(s.Heads), int32(some * group), int32(first * group), int32(s.HeadDim), float32(s.Scale), 0})
		}
	}
}

// fastHeads returns the heads of keys that a launch of the fast gradient serves, and 1 where there is room for one.
func fastHeads(tokens int, s gpu.AttentionShape) (heads, fast int) {
	heads = min(s.KVHeads, fastBytes/(4*max(1, tokens)*s.Heads/s.KVHeads*s.HeadDim))
	return heads, min(1, heads)
}

// tensorMaps describes the operands of an attention.
type tensorMaps struct {
	o      *operation
	s      gpu.AttentionShape
	tokens int
}

func (t tensorMaps) queries(b *Buffer, rows int) tensorMap {
	return t.o.tensorMap(b, t.s.Heads, t.s.HeadDim, t.tokens, rows)
}

func (t tensorMaps) keys(b *Buffer) tensorMap {
	return t.o.tensorMap(b, t.s.KVHeads, t.s.HeadDim, t.tokens, hopperRows)
}
