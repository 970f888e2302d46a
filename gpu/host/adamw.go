package host

import (
	"fmt"
	"math"

	"github.com/longalign/longalign-go/gpu"
)

// sumJob is a reduction or an update over elements: parts of a fixed size, whose sums are added in order.
type sumJob[F Float] struct {
	e          *engine[F]
	sums       []float64
	w, g, m, v []F
	constants  adamConstants[F]
}

const sumPart = 1 << 14

func (e *engine[F]) squaredNorm(g gpu.Buffer) (float64, error) {
	j := &e.jobs.sum
	*j = sumJob[F]{e: e, g: elements[F](g)}
	parts := ceil(len(j.g), sumPart)
	if len(e.scope.sums) < parts {
		e.scope.sums = make([]float64, parts)
	}
	j.sums = e.scope.sums
	e.work(2*float64(len(j.g)), float64(len(j.g)))
	e.dev.pool.run(j, parts)
	var sum float64
	for _, s := range j.sums[:parts] {
		sum += s
	}
	return sum, nil
}

func (e *engine[F]) adamw(w, g, m, v gpu.Buffer, p gpu.AdamW) error {
	j := &e.jobs.sum
	*j = sumJob[F]{e: e, w: elements[F](w), g: elements[F](g), m: elements[F](m), v: elements[F](v)}
	n := len(j.w)
	for _, x := range [...]struct {
		name string
		x    []F
	}{{"g", j.g}, {"m", j.m}, {"v", j.v}} {
		if err := want(x.name, x.x, n); err != nil {
			return err
		}
	}
	if p.Step < 1 {
		return fmt.Errorf("step %d; steps count from 1", p.Step)
	}
	j.constants = adamFactors[F](p)
	e.work(14*float64(n), 7*float64(n))
	e.dev.pool.run(j, ceil(n, sumPart))
	return nil
}

// adamFactors are the factors of an update.
func adamFactors[F Float](p gpu.AdamW) adamConstants[F] {
	t := float64(p.Step)
	return adamConstants[F]{
		gradScale: F(p.GradScale),
		b1:        F(p.Beta1), a1: F(1 - p.Beta1),
		b2: F(p.Beta2), a2: F(1 - p.Beta2),
		keep: F(1 - p.LR*p.WeightDecay),
		lr:   F(p.LR / (1 - math.Pow(p.Beta1, t))),
		root: F(1 / math.Sqrt(1-math.Pow(p.Beta2, t))),
		eps:  F(p.Eps),
	}
}

func (j *sumJob[F]) part(_, i int) {
	from, to := i*sumPart, min((i+1)*sumPart, len(j.g))
	if j.sums != nil {
		j.sums[i] = j.e.sumSquares(j.g[from:to])
		return
	}
	j.e.adam(j.w[from:to], j.g[from:to], j.m[from:to], j.v[from:to], &j.constants)
}
