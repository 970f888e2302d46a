package devicetest

import (
	"math"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

func attentionShape(heads, kv, e, window int, cu ...int32) gpu.AttentionShape {
	return gpu.AttentionShape{Heads: heads, KVHeads: kv, HeadDim: e, Scale: 1 / math.Sqrt(float64(e)), Window: window, CuSeqlens: cu}
}

func (s *suite) attention(t *testing.T) {
	for name, shape := range map[string]gpu.AttentionShape{
		"one token":                         attentionShape(1, 1, 8, 0, 0, 1),
		"one sequence, one head":            attentionShape(1, 1, 16, 0, 0, 37),
		"sequences of one token and none":   attentionShape(2, 2, 8, 0, 0, 1, 1, 2, 9),
		"groups of two heads":               attentionShape(4, 2, 32, 0, 0, 50, 63, 190),
		"one key head (multi-query)":        attentionShape(3, 1, 64, 0, 0, 100, 133),
		"width 80":                          attentionShape(2, 1, 80, 0, 0, 97, 110),
		"width 96":                          attentionShape(1, 1, 96, 0, 0, 70),
		"width 128":                         attentionShape(2, 1, 128, 0, 0, 65, 130),
		"an odd width":                      attentionShape(2, 1, 13, 0, 0, 40, 77),
		"more than one block":               attentionShape(1, 1, 16, 0, 0, 203, 650),
		"a window shorter than a block":     attentionShape(2, 1, 16, 5, 0, 40, 260),
		"a window longer than the sequence": attentionShape(1, 1, 16, 99, 0, 40),
		"a window over blocks":              attentionShape(1, 1, 8, 230, 0, 500),
		"a window of one":                   attentionShape(1, 1, 8, 1, 0, 210),
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t)
			T := int(shape.CuSeqlens[len(shape.CuSeqlens)-1])
			nq, nk := T*shape.Heads*shape.HeadDim, T*shape.KVHeads*shape.HeadDim
			q, k, v, dy := b.normal(nq, 1.5), b.normal(nk, 1.5), b.normal(nk, 1), b.normal(nq, 1)
			y, lse := refAttention(q, k, v, shape)
			by, blse := b.empty(nq), b.statistics(T*shape.Heads)
			bq, bk, bv := b.buffer(q), b.buffer(k), b.buffer(v)
			b.Attention(by, blse, bq, bk, bv, shape)
			b.near("y", by, y, 2*s.tolerance())
			b.near("lse", blse, lse, 2*s.tolerance())
			dq, dk, dv := refAttentionGrad(dy, q, k, v, shape)
			bdq, bdk, bdv := b.buffer(b.normal(nq, 1)), b.buffer(b.normal(nk, 1)), b.buffer(b.normal(nk, 1))
			b.AttentionGrad(bdq, bdk, bdv, b.buffer(dy), by, blse, bq, bk, bv, shape)
			b.near("dq", bdq, dq, 8*s.tolerance())
			b.near("dk", bdk, dk, 8*s.tolerance())
			b.near("dv", bdv, dv, 8*s.tolerance())
		})
	}
}

// statistics returns a buffer for lse, which a bf16 model keeps in float32.
func (b *bench) statistics(n int) gpu.Buffer {
	b.Helper()
	t := b.dtype
	if t == gpu.BFloat16 {
		t = gpu.Float32
	}
	d, err := b.Alloc(n, t)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func (s *suite) attentionCached(t *testing.T) {
	for name, c := range map[string]struct{ n, length, capacity, window int }{
		"the first token":                 {1, 1, 8, 0},
		"one token after many":            {1, 300, 300, 0},
		"three tokens after many":         {3, 211, 256, 0},
		"a prompt":                        {210, 210, 256, 0},
		"a block after a prompt":          {100, 333, 400, 0},
		"one token in a window":           {1, 300, 300, 17},
		"a block in a window over blocks": {60, 500, 512, 210},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t)
			shape := attentionShape(4, 2, 24, c.window, 0, int32(c.length))
			q := b.normal(c.length*4*24, 1.5)
			k, v := b.normal(c.capacity*2*24, 1.5), b.normal(c.capacity*2*24, 1)
			y, _ := refAttention(q, k, v, shape)
			last := (c.length - c.n) * 4 * 24
			by := b.empty(c.n * 4 * 24)
			shape.CuSeqlens = nil
			b.AttentionCached(by, b.buffer(q[last:]), b.buffer(k), b.buffer(v), c.n, c.length, shape)
			b.near("y", by, y[last:], 2*s.tolerance())
		})
	}
}

// A step over several caches gives each sequence the reference's result, and the bits of the sequence alone; what its cache held
// before and what lies beyond is untouched.
func (s *suite) attentionStep(t *testing.T) {
	type sequence struct{ length, capacity int }
	for name, c := range map[string]struct {
		heads, kv, e, window int
		sequences            []sequence
	}{
		"one sequence":                  {4, 2, 24, 0, []sequence{{77, 80}}},
		"first tokens":                  {2, 1, 16, 0, []sequence{{1, 1}, {1, 9}, {2, 2}}},
		"lengths far apart":             {4, 2, 32, 0, []sequence{{300, 300}, {1, 700}, {129, 256}, {64, 64}}},
		"as many key heads as heads":    {2, 2, 64, 0, []sequence{{200, 210}, {33, 40}}},
		"groups of eight":               {16, 2, 64, 0, []sequence{{150, 160}, {9, 9}}},
		"groups of twelve":              {12, 1, 16, 0, []sequence{{70, 72}}},
		"a window":                      {4, 1, 16, 40, []sequence{{30, 64}, {260, 300}, {41, 41}}},
		"an odd width, groups of three": {3, 1, 13, 0, []sequence{{140, 150}, {5, 6}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t)
			hq, hk := c.heads*c.e, c.kv*c.e
			var q, k, v, want matrix
			var caches, alone []gpu.CachedRows
			var held [][2]matrix
			for _, one := range c.sequences {
				keys, values := b.normal(one.capacity*hk, 1.5), b.normal(one.capacity*hk, 1)
				queries := b.normal(one.length*hq, 1.5)
				shape := attentionShape(c.heads, c.kv, c.e, c.window, 0, int32(one.length))
				y, _ := refAttention(queries, keys, values, shape)
				at := (one.length - 1) * hk
				q, want = append(q, queries[(one.length-1)*hq:]...), append(want, y[(one.length-1)*hq:]...)
				k, v = append(k, keys[at:at+hk]...), append(v, values[at:at+hk]...)
				alone = append(alone, gpu.CachedRows{Keys: b.buffer(keys), Values: b.buffer(values), Length: one.length})
				held = append(held, [2]matrix{slices.Clone(keys), slices.Clone(values)})
				clear(keys[at : at+hk]) // what the step has to fill in
				clear(values[at : at+hk])
				caches = append(caches, gpu.CachedRows{Keys: b.buffer(keys), Values: b.buffer(values), Length: one.length})
			}
			shape := attentionShape(c.heads, c.kv, c.e, c.window)
			by, bq := b.empty(len(q)), b.buffer(q)
			b.AttentionStep(by, bq, b.buffer(k), b.buffer(v), caches, shape)
			b.near("y", by, want, 2*s.tolerance())
			got := b.read(by)
			for i, one := range alone {
				y := b.empty(hq)
				b.AttentionCached(y, bq.Slice(i*hq, (i+1)*hq), one.Keys, one.Values, 1, one.Length, shape)
				if !slices.Equal(b.read(y), got[i*hq:(i+1)*hq]) {
					t.Errorf("sequence %d has other bits alone", i)
				}
				if !slices.Equal(b.read(caches[i].Keys), held[i][0]) || !slices.Equal(b.read(caches[i].Values), held[i][1]) {
					t.Errorf("the cache of sequence %d does not hold what it should", i)
				}
			}
		})
	}
}
