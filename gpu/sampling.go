package gpu

import "math"

// Draw says how to draw one token from its logits.
type Draw struct {
	// Temperature divides the logits; below MinTemperature the likeliest token is taken, the smallest ID among equals.
	Temperature float64
	// TopP keeps the likeliest tokens, fewest first, that together reach this probability; 0 and 1 keep all.
	TopP float64
	// Seed and Counter name the random number: equal ones draw the same token from the same logits on every device.
	Seed, Counter uint64
}

// MinTemperature is the lowest temperature at which tokens are drawn.
const MinTemperature = 1e-6

// Sampler is a Device that draws tokens itself, so that logits need not leave it. Every device draws the same tokens from the same
// logits: probabilities are integers, made by DrawWeight, whose sums have no order.
type Sampler interface {
	// Sample draws ids[i] from row i of logits [n,V] and sets logProbs[i] to its log-probability before temperature and
	// top-p, in float32's accuracy. It waits for the device.
	Sample(ids []int32, logProbs []float64, logits Buffer, vocab int, draws []Draw)
}

// DrawScale returns what DrawWeight multiplies by at a temperature.
func DrawScale(temperature float64) float32 { return float32(math.Log2E / temperature) }

// DrawWeight returns the weight of a token whose logit is below the largest by below ≥ 0: 2⁴⁵ · 2^(−below·scale), to 24 bits and in
// float32 operations that round alike everywhere, so that all devices agree on every bit.
func DrawWeight(below, scale float32) uint64 {
	x := below * scale
	if !(x < 46) {
		return 0
	}
	k := int32(x)
	f := float32(k) - x // in (−1, 0]
	// 2^f as a polynomial (Taylor's, of degree 7: off by less than 2⁻²⁴). The conversions keep the compiler from fusing.
	p := float32(1.5252734e-05)
	for _, c := range [...]float32{1.5403530e-04, 1.3333558e-03, 9.6181291e-03, 5.5504109e-02, 2.4022651e-01, 6.9314718e-01, 1} {
		p = float32(p*f) + c
	}
	w := uint64(float32(p*(1<<24))) << 21
	return w >> k
}

// DrawRandom is the random number of a draw.
func (d Draw) DrawRandom() uint64 {
	mix := func(z uint64) uint64 {
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	return mix(mix(d.Seed+0x9e3779b97f4a7c15) + d.Counter*0x9e3779b97f4a7c15)
}

// KeptShare returns TopP in units of 2⁻³², at least 1; all is 2³².
func (d Draw) KeptShare() uint64 {
	if d.TopP <= 0 || d.TopP >= 1 {
		return 1 << 32
	}
	return max(1, uint64(d.TopP*(1<<32)))
}
