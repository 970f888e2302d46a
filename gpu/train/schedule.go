package train

import "math"

// Warmup returns the number of warm-up steps.
func (o Options) Warmup() int {
	if o.WarmupSteps >= 0 {
		return o.WarmupSteps
	}
	// Decimal ratios are not exact in binary: 0.03·100 must give 3, not 4.
	return int(math.Ceil(o.WarmupRatio*float64(o.Steps) - 1e-9))
}

// LRAt returns the learning rate of a step, counted from 0. The first warm-up step has 0, as in Hugging Face.
func (o Options) LRAt(step int) float64 {
	warmup := o.Warmup()
	if step < warmup {
		return o.LR * (float64(step) / float64(max(1, warmup)))
	}
	progress := min(1, float64(step-warmup)/float64(max(1, o.Steps-warmup)))
	switch o.Schedule {
	case Linear:
		return o.MinLR + (o.LR-o.MinLR)*(1-progress)
	case Constant:
		return o.LR
	}
	return o.MinLR + (o.LR-o.MinLR)*0.5*(1+math.Cos(math.Pi*progress))
}
