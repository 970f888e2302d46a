package datasets

import (
	"math/bits"
	"math/rand/v2"
)

// Rand is the only source of randomness of this package: the PCG-DXSM generator of
// math/rand/v2, whose output for a seed is fixed for good, and bounded numbers by Lemire's
// multiplication with rejection, written out here so that no later library can change a
// plan. Tests pin its output.
type Rand struct{ pcg *rand.PCG }

// NewRand returns the generator with the two seed words seed and stream. Plans use the
// epoch as stream.
func NewRand(seed, stream uint64) *Rand { return &Rand{rand.NewPCG(seed, stream)} }

// Uint64n returns a uniform number in [0, n). n must not be 0.
func (r *Rand) Uint64n(n uint64) uint64 {
	hi, lo := bits.Mul64(r.pcg.Uint64(), n)
	if lo < n {
		// Reject the 2⁶⁴ mod n low values that would make some results likelier.
		for threshold := -n % n; lo < threshold; {
			hi, lo = bits.Mul64(r.pcg.Uint64(), n)
		}
	}
	return hi
}

// IntN returns a uniform number in [0, n). n must be positive.
func (r *Rand) IntN(n int) int { return int(r.Uint64n(uint64(n))) }

// Float64 returns a uniform number in [0, 1), a multiple of 2⁻⁵³.
func (r *Rand) Float64() float64 { return float64(r.pcg.Uint64()>>11) / (1 << 53) }

// Shuffle permutes s, every order alike: Fisher–Yates from the last element down.
func Shuffle[T any](r *Rand, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j := r.IntN(i + 1)
		s[i], s[j] = s[j], s[i]
	}
}
