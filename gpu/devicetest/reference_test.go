package devicetest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

func normal(rng *rand.Rand, n int) matrix {
	x := make(matrix, n)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	return x
}

// differences returns the central differences of f at x.
func differences(x matrix, f func() float64) matrix {
	const h = 1e-5
	g := make(matrix, len(x))
	for i, v := range x {
		x[i] = v + h
		up := f()
		x[i] = v - h
		g[i] = (up - f()) / (2 * h)
		x[i] = v
	}
	return g
}

// Each gradient of the reference is the derivative of Σ y·dy by finite differences.
func TestReferenceGradientsAreDerivatives(t *testing.T) {
	const tolerance = 1e-8 // h² times third derivatives, plus rounding over h
	rng := rand.New(rand.NewPCG(3, 4))
	t.Run("norm", func(t *testing.T) {
		x, w, dy := normal(rng, 21), normal(rng, 7), normal(rng, 21)
		f := func() float64 { y, _ := refRMSNorm(x, w, 7, 1e-5); return dot(y, dy) }
		_, rstd := refRMSNorm(x, w, 7, 1e-5)
		dx, dw := refRMSNormGrad(dy, x, w, rstd, 7)
		nearly(t, "dx", dx, differences(x, f), tolerance)
		nearly(t, "dw", dw, differences(w, f), tolerance)
	})
	t.Run("linear", func(t *testing.T) {
		x, w, bias, dy := normal(rng, 15), normal(rng, 20), normal(rng, 4), normal(rng, 12)
		f := func() float64 { return dot(refLinear(x, w, bias, 5, 4), dy) }
		dx, dw, dbias := refLinearGrad(dy, x, w, 5, 4)
		nearly(t, "dx", dx, differences(x, f), tolerance)
		nearly(t, "dw", dw, differences(w, f), tolerance)
		nearly(t, "dbias", dbias, differences(bias, f), tolerance)
	})
	t.Run("rope", func(t *testing.T) {
		cos, sin := normal(rng, 6), normal(rng, 6)
		for i := range cos {
			cos[i], sin[i] = math.Cos(cos[i]), math.Sin(cos[i])
		}
		x, dy := normal(rng, 2*2*8), normal(rng, 2*2*8)
		for _, layout := range []gpu.Layout{gpu.RotateHalf, gpu.Interleaved} {
			f := func() float64 {
				return dot(refRope(x, cos, sin, []int32{1, 0}, 2, 8, 6, layout, false), dy)
			}
			nearly(t, "dx", refRope(dy, cos, sin, []int32{1, 0}, 2, 8, 6, layout, true), differences(x, f), tolerance)
		}
	})
	t.Run("attention", func(t *testing.T) {
		for _, window := range []int{0, 2} {
			s := attentionShape(4, 2, 3, window, 0, 4, 5, 9)
			q, k, v, dy := normal(rng, 9*12), normal(rng, 9*6), normal(rng, 9*6), normal(rng, 9*12)
			f := func() float64 { y, _ := refAttention(q, k, v, s); return dot(y, dy) }
			dq, dk, dv := refAttentionGrad(dy, q, k, v, s)
			nearly(t, "dq", dq, differences(q, f), tolerance)
			nearly(t, "dk", dk, differences(k, f), tolerance)
			nearly(t, "dv", dv, differences(v, f), tolerance)
		}
	})
	t.Run("swiglu", func(t *testing.T) {
		gate, up, dy := normal(rng, 9), normal(rng, 9), normal(rng, 9)
		f := func() float64 { return dot(refSwiGLU(gate, up), dy) }
		dgate, dup := refSwiGLUGrad(dy, gate, up)
		nearly(t, "dgate", dgate, differences(gate, f), tolerance)
		nearly(t, "dup", dup, differences(up, f), tolerance)
	})
	t.Run("cross-entropy", func(t *testing.T) {
		h, w, coef := normal(rng, 20), normal(rng, 30), normal(rng, 4)
		targets := []int32{2, -100, 0, 5}
		f := func() float64 {
			nll, _, _ := refCrossEntropy(h, w, 5, 6, targets, coef)
			return dot(nll, coef)
		}
		_, dh, dw := refCrossEntropy(h, w, 5, 6, targets, coef)
		nearly(t, "dh", dh, differences(h, f), tolerance)
		nearly(t, "dw", dw, differences(w, f), tolerance)
	})
}
