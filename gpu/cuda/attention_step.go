package cuda

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// cachedRows is gpu.CachedRows as the kernels read it.
type cachedRows struct {
	keys, values uint64
	length       int32
	_            int32
}

// AttentionStep appends a token to each of several caches and attends to them, in three launches whatever their number is.
func (d *Device) AttentionStep(y, q, k, v gpu.Buffer, caches []gpu.CachedRows, s gpu.AttentionShape) {
	o := d.begin("AttentionStep")
	defer o.end()
	o.heads(s)
	if !o.failed() {
		o.try(gpu.CheckStep(y, q, k, v, caches, s))
	}
	bq := o.have("q", q)
	n, hk := len(caches), s.KVHeads*s.HeadDim
	by, bk, bv := o.want("y", y, bq.n, bq.dtype), o.want("k", k, n*hk, bq.dtype), o.want("v", v, n*hk, bq.dtype)
	rows, all := make([]cachedRows, n), make([]*Buffer, 0, 2*n)
	capacity, seen := 0, 0
	for i, c := range caches {
		if o.failed() {
			return
		}
		keys := o.want("the keys of a cache", c.Keys, c.Keys.Len(), bq.dtype)
		values := o.want("the values of a cache", c.Values, c.Keys.Len(), bq.dtype)
		rows[i] = cachedRows{keys.address, values.address, int32(c.Length), 0}
		all = append(all, keys, values)
		if s.Window > 0 {
			c.Length = min(c.Length, s.Window)
		}
		seen += c.Length
		capacity = max(capacity, keys.n/hk)
	}
	if o.failed() {
		return
	}
	o.work(4*float64(seen*s.Heads*s.HeadDim), float64(2*seen*hk*bq.dtype.Size()+by.bytes()+bq.bytes()))
	table := o.ints("rows of the caches", words(rows))
	launch(o, "cache_append", "T="+bq.element(), [3]int{n, 2, ceil(hk, 2048)}, 256, 0, struct {
		k, v, rows  uint64
		width, wide int32
	}{bk.address, bv.address, table, int32(hk), aligned(hk, append(all, bk, bv)...)})
	o.decode(by, bq, cachedRows{}, table, all, 1, n, capacity, s)
}

// words returns rows as integers.
func words(rows []cachedRows) []int32 {
	w := make([]int32, 0, 6*len(rows))
	for _, r := range rows {
		w = append(w, int32(r.keys), int32(r.keys>>32), int32(r.values), int32(r.values>>32), r.length, 0)
	}
	return w
}

// decode attends from n new tokens in each of some sequences to their caches: one, or those in a table on the card. The launches
// depend on the capacity of the caches and not on their lengths.
func (o *operation) decode(y, q *Buffer, one cachedRows, table uint64, caches []*Buffer, n, sequences, capacity int, s gpu.AttentionShape) {
	if o.failed() {
		return
	}
	group := s.Heads / s.KVHeads
	rows, r := n*group, 8
	switch {
	case rows == 1:
		r = 1
	case rows <= 4:
		r = 4
	}
	lanes := 1
	for lanes*8 < s.HeadDim {
		lanes *= 2
	}
	// Some 512 blocks a sequence fill any card; shares in prelude.cuh has the rest.
	most := max(1, 512/(s.KVHeads*ceil(rows, r)))
	places := min(most, ceil(capacity, 128))
	parts := o.scratch("shares of attention", 4*sequences*places*rows*s.KVHeads*(s.HeadDim+2))
	launch(o, "attention_decode", fmt.Sprintf("R=%d T=%s", r, q.element()), [3]int{places, s.KVHeads, sequences * ceil(rows, r)}, 128, 4*4*r*(8*lanes+2)+16+4*r, struct {
		parts, q, rows                                uint64
		one                                           cachedRows
		n, most, heads, kvheads, width, lanes, window int32
		scale                                         float32
		wide, _                                       int32
	}{parts, q.address, table, one, int32(n), int32(most), int32(s.Heads), int32(s.KVHeads), int32(s.HeadDim), int32(lanes), int32(s.Window), float32(s.Scale), aligned(s.HeadDim, append(caches, q)...), 0})
	launch(o, "attention_decode_merge", "T="+q.element(), [3]int{rows, s.KVHeads, sequences}, 128, 0, struct {
		y, parts, rows                                         uint64
		one                                                    cachedRows
		n, most, places, heads, kvheads, width, window, unused int32
	}{y.address, parts, table, one, int32(n), int32(most), int32(places), int32(s.Heads), int32(s.KVHeads), int32(s.HeadDim), int32(s.Window), 0})
}
