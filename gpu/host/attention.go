package host

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/longalign/longalign-go/gpu"
)

// Attention works on blocks of queryBlock queries by keyBlock keys, both multiples of any tile's sides.
// A row's scores exist for one block at a time; its maximum and sum are carried along.
const (
	queryBlock = 96
	keyBlock   = 192
)

// attentionTask is one part of an attention: queries from a block on (forward) or all of them (gradient), of one head and sequence.
type attentionTask struct {
	from, length int // the sequence's first key row and number of keys
	queries      int // its number of queries: the last of its keys
	first        int // row of its first query
	head, block  int
	packed       int // offset of its packed keys in rows
	cost         int
}

// attentionShape is a checked gpu.AttentionShape with its derived sizes.
type attentionShape[F Float] struct {
	e              *engine[F]
	heads, kv, d   int
	dp             int // head width padded to whole strips
	scale          F
	window         int
	keys, values   []F // packed, see packKVJob
	keysT, valuesT []F
	rows           int // packed rows in all, of one kv head
	tasks          []attentionTask
}

func (s *attentionShape[F]) group(head int) int { return head / (s.heads / s.kv) }

// first key a query at position p sees.
func (s *attentionShape[F]) lowest(p int) int {
	if s.window > 0 {
		return max(0, p-s.window+1)
	}
	return 0
}

func (e *engine[F]) attentionShape(s gpu.AttentionShape) (attentionShape[F], error) {
	a := attentionShape[F]{
		e: e, heads: s.Heads, kv: s.KVHeads, d: s.HeadDim, dp: ceil(s.HeadDim, e.nr) * e.nr,
		scale: F(s.Scale), window: s.Window,
	}
	if s.Heads <= 0 || s.KVHeads <= 0 || s.HeadDim <= 0 || s.Heads%s.KVHeads != 0 {
		return a, fmt.Errorf("%d query heads, %d key heads of width %d: query heads must be a multiple of key heads", s.Heads, s.KVHeads, s.HeadDim)
	}
	if s.Window < 0 {
		return a, fmt.Errorf("the window is %d", s.Window)
	}
	return a, nil
}

// checkSequences checks cu_seqlens and returns T.
func checkSequences(cu []int32) (int, error) {
	if len(cu) == 0 || cu[0] != 0 {
		return 0, fmt.Errorf("cu_seqlens %v does not begin with 0", cu[:min(len(cu), 4)])
	}
	for i := 1; i < len(cu); i++ {
		if cu[i] < cu[i-1] {
			return 0, fmt.Errorf("cu_seqlens falls from %d to %d at %d", cu[i-1], cu[i], i)
		}
	}
	return int(cu[len(cu)-1]), nil
}

// packKVJob packs keys and values of every sequence and kv head, as right operands: keys and valuesT of
// q kᵀ and dy vᵀ (strips of nr keys, padded), values and keysT of p v and ds k (blocks of keyBlock keys, strips of nr of the head width).
// A part is one keyBlock of one sequence, all kv heads.
type packKVJob[F Float] struct {
	s                            *attentionShape[F]
	k, v                         []F
	blocks                       []attentionTask
	keys, keysT, values, valuesT []F
}

func (j *packKVJob[F]) part(_, i int) {
	s, b := j.s, j.blocks[i]
	e, nr := s.e, s.e.nr
	j0 := b.block * keyBlock
	n := min(keyBlock, b.length-j0)
	ld := s.kv * s.d
	for g := range s.kv {
		src := (b.from+j0)*ld + g*s.d
		row := g*s.rows + b.packed + j0
		for c := 0; c < n; c += nr {
			r := min(nr, n-c)
			e.packT(j.keys[(row+c)*s.d:], j.k[src+c*ld:], ld, s.d, r, nr)
			if j.valuesT != nil {
				e.packT(j.valuesT[(row+c)*s.d:], j.v[src+c*ld:], ld, s.d, r, nr)
			}
		}
		for c := 0; c < s.dp; c += nr {
			r := min(nr, s.d-c)
			if j.values != nil {
				e.packCols(j.values[row*s.dp+c*n:], j.v[src+c:], ld, n, r, nr)
			}
			if j.keysT != nil {
				e.packCols(j.keysT[row*s.dp+c*n:], j.k[src+c:], ld, n, r, nr)
			}
		}
	}
}

// plan lists the sequences' key blocks in packing order, packs them and leaves the blocks in e.scope.tasks.
func (s *attentionShape[F]) pack(sequences []attentionTask, k, v []F, grad bool) {
	e := s.e
	blocks := e.scope.blocks[:0]
	s.rows = 0
	for i := range sequences {
		q := &sequences[i]
		q.packed = s.rows
		for b := range ceil(q.length, keyBlock) {
			t := *q
			t.block = b
			blocks = append(blocks, t)
		}
		s.rows += ceil(q.length, keyBlock) * keyBlock
	}
	e.scope.blocks = blocks
	n := s.rows * s.kv
	sizes := n*s.d + n*s.dp
	if grad {
		sizes *= 2
	}
	mem := e.common(sizes)
	take := func(n int) []F { m := mem[:n:n]; mem = mem[n:]; return m }
	s.keys = take(n * s.d)
	if grad {
		s.valuesT, s.keysT = take(n*s.d), take(n*s.dp)
	} else {
		s.values = take(n * s.dp)
	}
	j := &e.jobs.kv
	*j = packKVJob[F]{s: s, k: k, v: v, blocks: blocks, keys: s.keys, values: s.values, keysT: s.keysT, valuesT: s.valuesT}
	e.dev.pool.run(j, len(blocks))
}

// sequences turns cu_seqlens into tasks, one a sequence.
func (e *engine[F]) sequences(cu []int32) []attentionTask {
	seqs := e.scope.sequences[:0]
	for i := 1; i < len(cu); i++ {
		if n := int(cu[i] - cu[i-1]); n > 0 {
			seqs = append(seqs, attentionTask{from: int(cu[i-1]), first: int(cu[i-1]), length: n, queries: n})
		}
	}
	e.scope.sequences = seqs
	return seqs
}

type attentionJob[F Float] struct {
	attentionShape[F]
	y, lse, q []F
	tokens    int
}

func (e *engine[F]) attention(y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) error {
	shape, err := e.attentionShape(s)
	if err != nil {
		return err
	}
	tokens, err := checkSequences(s.CuSeqlens)
	if err != nil {
		return err
	}
	j := attentionJob[F]{attentionShape: shape, y: elements[F](y), lse: elements[F](lse), q: elements[F](q), tokens: tokens}
	ks, vs := elements[F](k), elements[F](v)
	if err := checkAttention(&shape, tokens, j.q, ks, vs); err != nil {
		return err
	}
	if err := want("y", j.y, len(j.q)); err != nil {
		return err
	}
	if err := want("lse", j.lse, tokens*s.Heads); err != nil {
		return err
	}
	e.work(4*float64(shape.heads*shape.d)*pairs(s), float64(2*len(j.q)+2*len(ks)))
	e.attend(j, e.sequences(s.CuSeqlens), ks, vs)
	return nil
}

func checkAttention[F Float](s *attentionShape[F], tokens int, q, k, v []F) error {
	if err := want("q", q, tokens*s.heads*s.d); err != nil {
		return err
	}
	if err := want("k", k, tokens*s.kv*s.d); err != nil {
		return err
	}
	return want("v", v, tokens*s.kv*s.d)
}

// pairs counts the (query, key) pairs of one head.
func pairs(s gpu.AttentionShape) float64 {
	var sum float64
	for i := 1; i < len(s.CuSeqlens); i++ {
		n := float64(s.CuSeqlens[i] - s.CuSeqlens[i-1])
		if w := float64(s.Window); w > 0 && w < n {
			sum += w*(w+1)/2 + (n-w)*w
		} else {
			sum += n * (n + 1) / 2
		}
	}
	return sum
}

// attend runs the forward pass over the sequences, the costly blocks first.
func (e *engine[F]) attend(j attentionJob[F], seqs []attentionTask, k, v []F) {
	e.jobs.attention = j
	job := &e.jobs.attention
	job.pack(seqs, k, v, false)
	tasks := e.scope.tasks[:0]
	for _, q := range seqs {
		for b := range ceil(q.queries, queryBlock) {
			last := q.length - q.queries + min((b+1)*queryBlock, q.queries) - 1
			for h := range job.heads {
				t := q
				t.head, t.block, t.cost = h, b, last-job.lowest(last)
				tasks = append(tasks, t)
			}
		}
	}
	e.scope.tasks = tasks
	slices.SortStableFunc(tasks, costly)
	job.tasks = tasks
	e.scratch(queryBlock*(job.d+job.dp+keyBlock+2) + 64)
	e.dev.pool.run(job, len(tasks))
}

func costly(a, b attentionTask) int { return cmp.Compare(b.cost, a.cost) }

func (j *attentionJob[F]) part(w, i int) {
	t := j.tasks[i]
	e, d, dp, mr := j.e, j.d, j.dp, j.e.mr
	mem := e.local[w]
	take := func(n int) []F { m := mem[:n:n]; mem = mem[n:]; return m }
	scores, acc, q := take(queryBlock*keyBlock), take(queryBlock*dp), take(queryBlock*d)
	top, sum := take(queryBlock), take(queryBlock)

	i0 := t.block * queryBlock
	n := min(queryBlock, t.queries-i0)
	p0 := t.length - t.queries + i0 // position of the first query
	j.loadRows(q, j.q, t.first+i0, t.head, n)
	for r := range n {
		e.scale(q[r*d:(r+1)*d], j.scale)
		top[r], sum[r] = F(math.Inf(-1)), 0
	}
	clear(acc[:ceil(n, mr)*mr*dp])

	g := j.group(t.head)
	for j0 := j.lowest(p0) / keyBlock * keyBlock; j0 < p0+n; j0 += keyBlock {
		keys := min(keyBlock, t.length-j0)
		row := g*j.rows + t.packed + j0
		j.scores(scores, q, j.keys[row*d:], p0, n, j0, keys)
		for r := range n {
			s := scores[r*keyBlock : (r+1)*keyBlock]
			lo, hi := j.visible(p0+r, j0, keys)
			if lo >= hi {
				clear(s)
				continue
			}
			m := max(top[r], e.max(s[lo:hi]))
			if top[r] != m {
				c := exp(top[r] - m)
				e.scale(acc[r*dp:(r+1)*dp], c)
				sum[r] *= c
				top[r] = m
			}
			sum[r] += e.expSum(s[lo:hi], m)
			clear(s[:lo])
			clear(s[hi:])
		}
		j.weigh(acc, scores, j.values[row*dp:], p0, n, j0, keys)
	}
	for r := range n {
		row := (t.first+i0+r)*j.heads*d + t.head*d
		y := j.y[row : row+d]
		copy(y, acc[r*dp:])
		e.scale(y, 1/sum[r])
		if j.lse != nil {
			j.lse[t.head*j.tokens+t.first+i0+r] = top[r] + F(math.Log(float64(sum[r])))
		}
	}
}

// visible returns the keys of the block from j0 that the query at position p sees, as [lo, hi) relative to j0.
func (s *attentionShape[F]) visible(p, j0, keys int) (lo, hi int) {
	return max(0, s.lowest(p)-j0), min(keys, p+1-j0)
}

// loadRows copies n rows of one head from x [T,heads,E], padded with zero rows to whole tiles.
func (s *attentionShape[F]) loadRows(dst, x []F, from, head, n int) {
	for r := range n {
		o := ((from+r)*s.heads + head) * s.d
		copy(dst[r*s.d:(r+1)*s.d], x[o:o+s.d])
	}
	clear(dst[n*s.d : ceil(n, s.e.mr)*s.e.mr*s.d])
}

// scores computes the rows' products with a block of packed keys (or values), leaving out tiles
// that the causal mask hides whole.
func (s *attentionShape[F]) scores(dst, q, packed []F, p0, n, j0, keys int) {
	e := s.e
	for c := 0; c < keys && j0+c < p0+n; c += e.nr {
		r := max(0, j0+c-p0) / e.mr * e.mr
		e.tileRows(s.d, ceil(n-r, e.mr), &q[r*s.d], s.d, e.mr*s.d, &packed[c*s.d], &dst[r*keyBlock+c], keyBlock, false)
	}
}

// weigh adds to acc the products of the rows' weights of a block of keys with the packed values (or keys) of the
// block. Keys that no row of a tile sees are left out, whose weights are zero.
func (s *attentionShape[F]) weigh(acc, weights, packed []F, p0, n, j0, keys int) {
	e := s.e
	for r := 0; r < n; {
		used, groups := min(keys, p0+r+e.mr-j0), 1
		if used == keys {
			groups = ceil(n-r, e.mr)
		}
		for c := 0; used > 0 && c < s.dp; c += e.nr {
			e.tileRows(used, groups, &weights[r*keyBlock], keyBlock, e.mr*keyBlock, &packed[c*keys], &acc[r*s.dp+c], s.dp, true)
		}
		r += groups * e.mr
	}
}
