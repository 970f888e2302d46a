package host

import (
	"slices"

	"github.com/longalign/longalign-go/gpu"
)

// attentionGradJob computes the gradient of one head of one sequence a part, with the scores made anew from lse:
// p = exp(q·k − lse), ds = p (dy·v − dy·y), dv = pᵀ dy, dk = dsᵀ q, dq = ds k.
// dk and dv of each query head are sums of their own, [heads, rows, dp], added over a group afterwards in order.
type attentionGradJob[F Float] struct {
	attentionShape[F]
	dq, dy, y, lse, q []F
	dk, dv            []F
	tokens            int
}

func (e *engine[F]) attentionGrad(dq, dk, dv, dy, y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) error {
	shape, err := e.attentionShape(s)
	if err != nil {
		return err
	}
	tokens, err := checkSequences(s.CuSeqlens)
	if err != nil {
		return err
	}
	e.jobs.attGrad = attentionGradJob[F]{
		attentionShape: shape, dq: elements[F](dq), dy: elements[F](dy), y: elements[F](y),
		lse: elements[F](lse), q: elements[F](q), tokens: tokens,
	}
	j := &e.jobs.attGrad
	ks, vs, dks, dvs := elements[F](k), elements[F](v), elements[F](dk), elements[F](dv)
	if err := checkAttention(&shape, tokens, j.q, ks, vs); err != nil {
		return err
	}
	for _, x := range [...]struct {
		name string
		x    []F
		n    int
	}{
		{"dq", j.dq, len(j.q)}, {"dy", j.dy, len(j.q)}, {"y", j.y, len(j.q)},
		{"lse", j.lse, tokens * s.Heads}, {"dk", dks, len(ks)}, {"dv", dvs, len(vs)},
	} {
		if err := want(x.name, x.x, x.n); err != nil {
			return err
		}
	}
	e.work(10*float64(shape.heads*shape.d)*pairs(s), float64(4*len(j.q)+4*len(ks)))

	seqs := e.sequences(s.CuSeqlens)
	j.pack(seqs, ks, vs, true)
	sums := j.rows * j.heads * j.dp
	if len(e.scope.grads) < 2*sums {
		e.scope.grads = aligned[F](2 * sums)
	}
	j.dk, j.dv = e.scope.grads[:sums], e.scope.grads[sums:2*sums]
	tasks := e.scope.tasks[:0]
	for _, q := range seqs {
		q.cost = q.length
		for q.head = range j.heads {
			tasks = append(tasks, q)
		}
	}
	e.scope.tasks = tasks
	slices.SortStableFunc(tasks, costly)
	j.tasks = tasks
	e.scratch(queryBlock*(2*keyBlock+2*j.d+3*j.dp+1) + 64)
	e.dev.pool.run(j, len(tasks))

	sum := &e.jobs.sumHeads
	*sum = sumHeadsJob[F]{attentionGradJob: j, outK: dks, outV: dvs}
	e.dev.pool.run(sum, len(e.scope.blocks))
	return nil
}

func (j *attentionGradJob[F]) part(w, i int) {
	t := j.tasks[i]
	e, d, dp, mr, nr := j.e, j.d, j.dp, j.e.mr, j.e.nr
	mem := e.local[w]
	take := func(n int) []F { m := mem[:n:n]; mem = mem[n:]; return m }
	p, ds := take(queryBlock*keyBlock), take(queryBlock*keyBlock)
	q, dy := take(queryBlock*d), take(queryBlock*d)
	qp, dyp, dq := take(queryBlock*dp), take(queryBlock*dp), take(queryBlock*dp)
	delta := take(queryBlock)

	g := j.group(t.head)
	row0 := g*j.rows + t.packed
	out0 := (t.head*j.rows + t.packed) * dp
	padded := ceil(t.length, keyBlock) * keyBlock
	dk, dv := j.dk[out0:out0+padded*dp], j.dv[out0:out0+padded*dp]
	clear(dk)
	clear(dv)

	for i0 := 0; i0 < t.length; i0 += queryBlock {
		n := min(queryBlock, t.length-i0)
		j.loadRows(q, j.q, t.first+i0, t.head, n)
		j.loadRows(dy, j.dy, t.first+i0, t.head, n)
		for r := range n {
			e.scale(q[r*d:(r+1)*d], j.scale)
			o := ((t.first+i0+r)*j.heads + t.head) * d
			delta[r] = e.dot(dy[r*d:(r+1)*d], j.y[o:o+d])
		}
		for c := 0; c < dp; c += nr {
			e.packCols(qp[c*n:], q[c:], d, n, min(nr, d-c), nr)
			e.packCols(dyp[c*n:], dy[c:], d, n, min(nr, d-c), nr)
		}
		clear(dq[:ceil(n, mr)*mr*dp])
		lse := j.lse[t.head*j.tokens+t.first+i0:][:n]

		for j0 := j.lowest(i0) / keyBlock * keyBlock; j0 < i0+n; j0 += keyBlock {
			keys := min(keyBlock, t.length-j0)
			row := row0 + j0
			j.scores(p, q, j.keys[row*d:], i0, n, j0, keys)
			j.scores(ds, dy, j.valuesT[row*d:], i0, n, j0, keys)
			for r := range n {
				ps, dss := p[r*keyBlock:(r+1)*keyBlock], ds[r*keyBlock:(r+1)*keyBlock]
				lo, hi := j.visible(i0+r, j0, keys)
				if lo >= hi {
					lo, hi = 0, 0
				} else {
					e.softmaxGrad(ps[lo:hi], dss[lo:hi], lse[r], delta[r])
				}
				clear(ps[:lo])
				clear(ps[hi:])
				clear(dss[:lo])
				clear(dss[hi:])
			}
			j.weigh(dq, ds, j.keysT[row*dp:], i0, n, j0, keys)
			for k := 0; k < keys; {
				from, groups := max(0, j0+k-i0), 1 // earlier queries do not see key k
				if j0+keys <= i0 {
					groups = ceil(keys, mr)
				}
				for c := 0; from < n && c < dp; c += nr {
					o := (j0+k)*dp + c
					e.tileCols(n-from, groups, &p[from*keyBlock+k], keyBlock, mr, &dyp[c*n+from*nr], &dv[o], dp, true)
					e.tileCols(n-from, groups, &ds[from*keyBlock+k], keyBlock, mr, &qp[c*n+from*nr], &dk[o], dp, true)
				}
				k += groups * mr
			}
		}
		for r := range n {
			o := ((t.first+i0+r)*j.heads + t.head) * d
			copy(j.dq[o:o+d], dq[r*dp:])
			e.scale(j.dq[o:o+d], j.scale)
		}
	}
}

// sumHeadsJob adds dk and dv over the query heads of each group; a part is one block of keys.
type sumHeadsJob[F Float] struct {
	*attentionGradJob[F]
	outK, outV []F
}

func (j *sumHeadsJob[F]) part(_, i int) {
	b := j.e.scope.blocks[i]
	group := j.heads / j.kv
	j0 := b.block * keyBlock
	for r := j0; r < min(j0+keyBlock, b.length); r++ {
		for g := range j.kv {
			o := ((b.from+r)*j.kv + g) * j.d
			for h := range group {
				src := ((g*group+h)*j.rows + b.packed + r) * j.dp
				k, v := j.dk[src:src+j.d], j.dv[src:src+j.d]
				if h == 0 {
					copy(j.outK[o:o+j.d], k)
					copy(j.outV[o:o+j.d], v)
				} else {
					j.e.plus(j.outK[o:o+j.d], k)
					j.e.plus(j.outV[o:o+j.d], v)
				}
			}
		}
	}
}
