// Package bootstrap gives scores their uncertainty: percentile bootstrap
// intervals of a mean, of a mean of means, of a mean over samples that belong
// together, and of the difference between two methods scored on the same samples.
//
// Everything is a function of the values, their order, the seed and the number
// of resamples: the generator is PCG (math/rand/v2), whose stream is fixed, so a
// table recomputed from stored scores repeats its intervals bit for bit.
// Callers order samples by id (Match does) to be independent of file order.
//
// Units are those of the input. Values must be finite; a NaN or an infinity
// makes the results NaN. A failed sample has no value: leave it out, do not pass zero.
//
// Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993):
// percentile intervals, chapter 13; bootstrap test of a mean, section 16.4.
package bootstrap

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

const (
	// DefaultResamples is enough for the second digit of a 95 % bound.
	DefaultResamples = 10_000

	lowQuantile  = 0.025
	highQuantile = 0.975
	// stream is the second half of the PCG seed: it keeps these draws apart from
	// other uses of the same experiment seed.
	stream = 0x626f6f7473747261
)

// Interval is a mean with its 95 % percentile bootstrap interval.
type Interval struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// N is the number of samples. With N = 0 the other fields mean nothing;
	// with N = 1 the interval is the point, which says nothing about spread.
	N int `json:"n"`
}

// MeanCI returns the mean of x and its interval. resamples ≤ 0 means
// DefaultResamples.
func MeanCI(x []float64, seed uint64, resamples int) Interval {
	if len(x) == 0 {
		return Interval{}
	}
	return interval(mean(x), len(x), resampledMeans(x, newSource(seed), resamples))
}

// MacroMeanCI returns the unweighted mean of the groups' means, as benchmarks
// average datasets of unequal size, and its interval: every group is resampled
// within itself. A group without samples leaves no mean to average, so the result
// is then the zero Interval. N counts samples over all groups.
func MacroMeanCI(groups [][]float64, seed uint64, resamples int) Interval {
	if len(groups) == 0 {
		return Interval{}
	}
	src := newSource(seed)
	var total float64
	var n int
	sums := make([]float64, atLeastOne(resamples))
	for _, group := range groups {
		if len(group) == 0 {
			return Interval{}
		}
		n += len(group)
		total += mean(group)
		for i, m := range resampledMeans(group, src, resamples) {
			sums[i] += m
		}
	}
	k := float64(len(groups))
	for i := range sums {
		sums[i] /= k
	}
	return interval(total/k, n, sums)
}

// ClusterMeanCI is MeanCI for samples that belong together, such as the turns of a conversation: whole clusters are drawn, because two
// samples of one say less than two of their own. In the mean every sample counts alike. N counts samples.
func ClusterMeanCI(clusters [][]float64, seed uint64, resamples int) Interval {
	var sums []float64
	var sizes []int
	var total float64
	n := 0
	for _, c := range clusters {
		if len(c) == 0 {
			continue
		}
		var sum float64
		for _, v := range c {
			sum += v
		}
		sums, sizes = append(sums, sum), append(sizes, len(c))
		total += sum
		n += len(c)
	}
	if n == 0 {
		return Interval{}
	}
	src := newSource(seed)
	means := make([]float64, atLeastOne(resamples))
	for i := range means {
		var sum float64
		drawn := 0
		for range sums {
			k, _ := bits.Mul64(src.Uint64(), uint64(len(sums)))
			sum += sums[k]
			drawn += sizes[k]
		}
		means[i] = sum / float64(drawn)
	}
	return interval(total/float64(n), n, means)
}

// PairedResult compares method A with method B on the same samples.
type PairedResult struct {
	// Diff is the mean of a − b, with its 95 % percentile interval.
	Diff float64 `json:"diff"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// P is the two-sided probability of a mean difference at least as large when
	// there is none: the share of resamples of the centred differences that reach
	// |Diff|, counting the observed one, so that P is never 0.
	P float64 `json:"p"`
	// N is the number of pairs. With N = 0 the other fields mean nothing.
	N int `json:"n"`
}

// Paired tests whether a and b, scores of two methods on the same samples in the
// same order (see Match), differ in their mean. It panics when the lengths differ:
// unmatched samples are an error of the program. resamples ≤ 0 means DefaultResamples.
func Paired(a, b []float64, seed uint64, resamples int) PairedResult {
	if len(a) != len(b) {
		panic("bootstrap: Paired needs samples matched by id (use Match)")
	}
	if len(a) == 0 {
		return PairedResult{P: 1}
	}
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	means := resampledMeans(d, newSource(seed), resamples)
	diff := mean(d)
	// The resampled means of the centred differences are the same means less
	// diff, so one set of resamples serves the interval and the test. The slack
	// keeps rounding of equal sums in another order from hiding a tie.
	slack := 1e-12 * maxAbs(d)
	reached := 1
	for _, m := range means {
		if math.Abs(m-diff) >= math.Abs(diff)-slack {
			reached++
		}
	}
	iv := interval(diff, len(d), means)
	return PairedResult{Diff: iv.Mean, Low: iv.Low, High: iv.High, N: iv.N,
		P: float64(reached) / float64(len(means)+1)}
}

func newSource(seed uint64) *rand.PCG { return rand.NewPCG(seed, stream) }

func atLeastOne(resamples int) int {
	if resamples <= 0 {
		return DefaultResamples
	}
	return resamples
}

// resampledMeans draws len(x) values with replacement, resamples times.
func resampledMeans(x []float64, src *rand.PCG, resamples int) []float64 {
	means := make([]float64, atLeastOne(resamples))
	n := uint64(len(x))
	for i := range means {
		var sum float64
		for range x {
			// Multiply-shift instead of rejection: the bias is below n/2⁶⁴.
			hi, _ := bits.Mul64(src.Uint64(), n)
			sum += x[hi]
		}
		means[i] = sum / float64(n)
	}
	return means
}

func interval(m float64, n int, means []float64) Interval {
	if math.IsNaN(m) || math.IsInf(m, 0) {
		return Interval{Mean: math.NaN(), Low: math.NaN(), High: math.NaN(), N: n}
	}
	slices.Sort(means)
	return Interval{Mean: m, Low: quantile(means, lowQuantile), High: quantile(means, highQuantile), N: n}
}

// quantile interpolates linearly between the order statistics around q·(len−1).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

func maxAbs(x []float64) float64 {
	var m float64
	for _, v := range x {
		m = max(m, math.Abs(v))
	}
	return m
}
