package host

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// decodeRows is the largest number of new tokens whose scores are computed row by row, without packing keys.
const decodeRows = 4

// decodeJob attends from one new token with one kv head's query heads a part.
type decodeJob[F Float] struct {
	attentionShape[F]
	y, q, k, v []F
	n, length  int
}

func (e *engine[F]) attentionCached(y, q, k, v gpu.Buffer, n, length int, s gpu.AttentionShape) error {
	shape, err := e.attentionShape(s)
	if err != nil {
		return err
	}
	ys, qs, ks, vs := elements[F](y), elements[F](q), elements[F](k), elements[F](v)
	if n < 0 || length < n {
		return fmt.Errorf("%d new tokens of %d", n, length)
	}
	capacity, err := rowsOf("k", ks, s.KVHeads*s.HeadDim)
	if err == nil && capacity < length {
		err = fmt.Errorf("the cache holds %d tokens, not %d", capacity, length)
	}
	if err == nil {
		err = want("v", vs, len(ks))
	}
	if err == nil {
		err = want("q", qs, n*s.Heads*s.HeadDim)
	}
	if err == nil {
		err = want("y", ys, len(qs))
	}
	if err != nil || n == 0 {
		return err
	}
	e.work(4*float64(n)*float64(length)*float64(s.Heads*s.HeadDim), float64(2*len(qs)+2*length*s.KVHeads*s.HeadDim))
	if n > decodeRows {
		seq := append(e.scope.sequences[:0], attentionTask{length: length, queries: n})
		e.scope.sequences = seq
		e.attend(attentionJob[F]{attentionShape: shape, y: ys, q: qs, tokens: n}, seq, ks, vs)
		return nil
	}
	e.scratch(length * (s.Heads / s.KVHeads))
	j := &e.jobs.decode
	*j = decodeJob[F]{attentionShape: shape, y: ys, q: qs, k: ks, v: vs, n: n, length: length}
	e.dev.pool.run(j, n*s.KVHeads)
	return nil
}

func (j *decodeJob[F]) part(w, i int) {
	e, d, g := j.e, j.d, i%j.kv
	t := i / j.kv
	group := j.heads / j.kv
	pos := j.length - j.n + t
	lo := j.lowest(pos)
	keys := pos + 1 - lo
	scores := e.local[w]
	q := j.q[(t*j.heads+g*group)*d:][:group*d]
	y := j.y[(t*j.heads+g*group)*d:][:group*d]
	for r := range keys {
		o := ((lo+r)*j.kv + g) * d
		k := j.k[o : o+d]
		for h := range group {
			scores[h*keys+r] = e.dot(q[h*d:(h+1)*d], k) * j.scale
		}
	}
	for h := range group {
		s := scores[h*keys : (h+1)*keys]
		e.scale(s, 1/e.expSum(s, e.max(s)))
	}
	clear(y)
	for r := range keys {
		o := ((lo+r)*j.kv + g) * d
		v := j.v[o : o+d]
		for h := range group {
			e.axpy(y[h*d:(h+1)*d], v, scores[h*keys+r])
		}
	}
}
