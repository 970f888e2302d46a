package host

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// eachJob is an operation on single elements, or on rows that are copied.
type eachJob[F Float] struct {
	e             *engine[F]
	kind          eachKind
	a, b, c, p, q []F
	ids           []int32
	n, per        int // elements or rows, and those of a part
	d             int
}

type eachKind uint8

const (
	eachSwiGLU eachKind = iota
	eachSwiGLUGrad
	eachAdd
	eachCopy
	eachZero
	eachEmbedding
)

func (e *engine[F]) each(j eachJob[F]) {
	j.e = e
	if j.per == 0 {
		j.per = 16384
	}
	e.jobs.each = j
	e.dev.pool.run(&e.jobs.each, ceil(j.n, j.per))
}

func (j *eachJob[F]) part(_, i int) {
	from, to := i*j.per, min((i+1)*j.per, j.n)
	switch j.kind {
	case eachSwiGLU:
		j.e.silu(j.a[from:to], j.b[from:to], j.c[from:to])
	case eachSwiGLUGrad:
		j.e.siluGrad(j.a[from:to], j.b[from:to], j.c[from:to], j.p[from:to], j.q[from:to])
	case eachAdd:
		j.e.plus(j.a[from:to], j.b[from:to])
	case eachCopy:
		copy(j.a[from:to], j.b[from:to])
	case eachZero:
		clear(j.a[from:to])
	case eachEmbedding:
		for t := from; t < to; t++ {
			id := int(j.ids[t])
			copy(j.a[t*j.d:(t+1)*j.d], j.b[id*j.d:(id+1)*j.d])
		}
	}
}

func (e *engine[F]) swiglu(y, gate, up gpu.Buffer) error {
	j := eachJob[F]{kind: eachSwiGLU, a: elements[F](y), b: elements[F](gate), c: elements[F](up), per: 4096}
	j.n = len(j.a)
	err := want("gate", j.b, j.n)
	if err == nil {
		err = want("up", j.c, j.n)
	}
	if err == nil {
		e.work(5*float64(j.n), 3*float64(j.n))
		e.each(j)
	}
	return err
}

func (e *engine[F]) swigluGrad(dgate, dup, dy, gate, up gpu.Buffer) error {
	j := eachJob[F]{
		kind: eachSwiGLUGrad, a: elements[F](dgate), b: elements[F](dup), c: elements[F](dy),
		p: elements[F](gate), q: elements[F](up), per: 4096,
	}
	j.n = len(j.a)
	err := want("dup", j.b, j.n)
	if err == nil {
		err = want("dy", j.c, j.n)
	}
	if err == nil {
		err = want("gate", j.p, j.n)
	}
	if err == nil {
		err = want("up", j.q, j.n)
	}
	if err == nil {
		e.work(11*float64(j.n), 5*float64(j.n))
		e.each(j)
	}
	return err
}

func (e *engine[F]) add(y, x gpu.Buffer) error {
	j := eachJob[F]{kind: eachAdd, a: elements[F](y), b: elements[F](x)}
	j.n = len(j.a)
	if err := want("x", j.b, j.n); err != nil {
		return err
	}
	e.work(float64(j.n), 3*float64(j.n))
	e.each(j)
	return nil
}

func (e *engine[F]) copyTo(dst, src gpu.Buffer) error {
	j := eachJob[F]{kind: eachCopy, a: elements[F](dst), b: elements[F](src), per: 1 << 16}
	j.n = len(j.a)
	if err := want("the source", j.b, j.n); err != nil {
		return err
	}
	e.work(0, 2*float64(j.n))
	e.each(j)
	return nil
}

func (e *engine[F]) zero(x gpu.Buffer) error {
	j := eachJob[F]{kind: eachZero, a: elements[F](x), per: 1 << 16}
	j.n = len(j.a)
	e.work(0, float64(j.n))
	e.each(j)
	return nil
}

func (e *engine[F]) embedding(y, table gpu.Buffer, ids []int32, d int) error {
	j := eachJob[F]{kind: eachEmbedding, a: elements[F](y), b: elements[F](table), ids: ids, n: len(ids), per: grain(d), d: d}
	if err := checkEmbedding("y", j.a, j.b, ids, d); err != nil {
		return err
	}
	e.work(0, 2*float64(len(j.a)))
	e.each(j)
	return nil
}

func checkEmbedding[F Float](name string, y, table []F, ids []int32, d int) error {
	vocab, err := rowsOf("the table", table, d)
	if err == nil {
		err = want(name, y, len(ids)*d)
	}
	if err != nil {
		return err
	}
	for t, id := range ids {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("token %d has id %d, the vocabulary %d entries", t, id, vocab)
		}
	}
	return nil
}

// embeddingGradJob gives a part some columns, so that each row of the table is summed in order of t.
type embeddingGradJob[F Float] struct {
	e          *engine[F]
	dtable, dy []F
	ids        []int32
	d          int
}

const embeddingColumns = 64

func (e *engine[F]) embeddingGrad(dtable, dy gpu.Buffer, ids []int32, d int) error {
	j := &e.jobs.embedGrad
	*j = embeddingGradJob[F]{e: e, dtable: elements[F](dtable), dy: elements[F](dy), ids: ids, d: d}
	if err := checkEmbedding("dy", j.dy, j.dtable, ids, d); err != nil {
		return err
	}
	e.work(float64(len(j.dy)), 3*float64(len(j.dy)))
	e.dev.pool.run(j, ceil(d, embeddingColumns))
	return nil
}

func (j *embeddingGradJob[F]) part(_, i int) {
	c0 := i * embeddingColumns
	c1 := min(c0+embeddingColumns, j.d)
	for t, id := range j.ids {
		row := int(id) * j.d
		j.e.plus(j.dtable[row+c0:row+c1], j.dy[t*j.d+c0:t*j.d+c1])
	}
}

type ropeJob[F Float] struct {
	e                *engine[F]
	x, cos, sin      []F
	positions        []int32
	heads, d, rotary int
	layout           gpu.Layout
	inverse          bool
	per              int
}

func (e *engine[F]) rope(x, cos, sin gpu.Buffer, positions []int32, heads, d, rotary int, layout gpu.Layout, inverse bool) error {
	j := &e.jobs.rope
	*j = ropeJob[F]{
		e: e, x: elements[F](x), cos: elements[F](cos), sin: elements[F](sin), positions: positions,
		heads: heads, d: d, rotary: rotary, layout: layout, inverse: inverse, per: grain(heads * d),
	}
	if heads <= 0 || d <= 0 || rotary <= 0 || rotary%2 != 0 || rotary > d {
		return fmt.Errorf("%d heads of width %d, of which %d rotate", heads, d, rotary)
	}
	if layout != gpu.RotateHalf && layout != gpu.Interleaved {
		return fmt.Errorf("layout %d is not known", layout)
	}
	maxPos, err := rowsOf("cos", j.cos, rotary/2)
	if err == nil {
		err = want("sin", j.sin, len(j.cos))
	}
	if err == nil {
		err = want("x", j.x, len(positions)*heads*d)
	}
	if err != nil {
		return err
	}
	for t, p := range positions {
		if p < 0 || int(p) >= maxPos {
			return fmt.Errorf("token %d is at position %d, the tables hold %d", t, p, maxPos)
		}
	}
	e.work(3*float64(len(positions)*heads*rotary), 2*float64(len(j.x)))
	e.scratch(rotary / 2)
	e.dev.pool.run(j, ceil(len(positions), j.per))
	return nil
}

func (j *ropeJob[F]) part(w, i int) {
	half := j.rotary / 2
	for t := i * j.per; t < min((i+1)*j.per, len(j.positions)); t++ {
		p := int(j.positions[t]) * half
		cos, sin := j.cos[p:p+half], j.sin[p:p+half]
		if j.inverse {
			negative := j.e.local[w][:half]
			for i, v := range sin {
				negative[i] = -v
			}
			sin = negative
		}
		for h := range j.heads {
			x := j.x[(t*j.heads+h)*j.d:][:j.rotary]
			if j.layout == gpu.RotateHalf {
				j.e.rotate(x[:half], x[half:], cos, sin)
			} else {
				rotatePairs(x, cos, sin)
			}
		}
	}
}

func rotatePairs[F Float](x, cos, sin []F) {
	for i, c := range cos {
		a, b := x[2*i], x[2*i+1]
		x[2*i] = a*c - b*sin[i]
		x[2*i+1] = b*c + a*sin[i]
	}
}
