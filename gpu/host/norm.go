package host

import (
	"math"

	"github.com/longalign/longalign-go/gpu"
)

type normJob[F Float] struct {
	e             *engine[F]
	y, rstd, x, w []F
	rows, d, per  int
	eps           float64
}

func (e *engine[F]) rmsNorm(y, rstd, x, w gpu.Buffer, d int, eps float64) error {
	j := &e.jobs.norm
	*j = normJob[F]{e: e, y: elements[F](y), rstd: elements[F](rstd), x: elements[F](x), w: elements[F](w), d: d, eps: eps, per: grain(d)}
	var err error
	if j.rows, err = rowsOf("x", j.x, d); err == nil {
		err = want("y", j.y, len(j.x))
	}
	if err == nil {
		err = want("rstd", j.rstd, j.rows)
	}
	if err == nil {
		err = want("w", j.w, d)
	}
	if err != nil {
		return err
	}
	e.work(4*float64(len(j.x)), 2*float64(len(j.x)))
	e.dev.pool.run(j, ceil(j.rows, j.per))
	return nil
}

func (j *normJob[F]) part(_, i int) {
	for t := i * j.per; t < min((i+1)*j.per, j.rows); t++ {
		x := j.x[t*j.d : (t+1)*j.d]
		r := F(1 / math.Sqrt(float64(j.e.dot(x, x))/float64(j.d)+j.eps))
		j.rstd[t] = r
		j.e.scaleMul(j.y[t*j.d:(t+1)*j.d], x, j.w, r)
	}
}

// normGradJob sums dw over blocks of rows, whose sums are then added in order.
type normGradJob[F Float] struct {
	e                      *engine[F]
	dx, dw, dy, x, w, rstd []F
	rows, d, per           int
}

func (e *engine[F]) rmsNormGrad(dx, dw, dy, x, w, rstd gpu.Buffer, d int) error {
	j := &e.jobs.normGrad
	*j = normGradJob[F]{e: e, dx: elements[F](dx), dy: elements[F](dy), x: elements[F](x), w: elements[F](w), rstd: elements[F](rstd), d: d, per: grain(d)}
	var err error
	if j.rows, err = rowsOf("x", j.x, d); err == nil {
		err = want("dx", j.dx, len(j.x))
	}
	if err == nil {
		err = want("dy", j.dy, len(j.x))
	}
	if err == nil {
		err = want("rstd", j.rstd, j.rows)
	}
	if err == nil {
		err = want("w", j.w, d)
	}
	if err == nil && dw != nil {
		err = want("dw", elements[F](dw), d)
	}
	if err != nil {
		return err
	}
	e.work(8*float64(len(j.x)), 4*float64(len(j.x)))
	parts := ceil(j.rows, j.per)
	j.dw = e.common(parts * d)
	clear(j.dw)
	e.dev.pool.run(j, parts)
	if dw != nil {
		sum := elements[F](dw)
		for i := range parts {
			e.plus(sum, j.dw[i*d:(i+1)*d])
		}
	}
	return nil
}

func (j *normGradJob[F]) part(_, i int) {
	d := j.d
	dw := j.dw[i*d : (i+1)*d]
	for t := i * j.per; t < min((i+1)*j.per, j.rows); t++ {
		x, dy := j.x[t*d:(t+1)*d], j.dy[t*d:(t+1)*d]
		r := j.rstd[t]
		c := r * r * r * j.e.dot3(dy, x, j.w) / F(d)
		j.e.normGrad(j.dx[t*d:(t+1)*d], dw, dy, x, j.w, r, c)
	}
}
