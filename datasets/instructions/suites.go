package instructions

import (
	"fmt"
	"math"
	"slices"

	"github.com/longalign/longalign-go/datasets"
)

// Prefix returns the numbers, ascending, of the first size of n instances in the order shuffled by seed. Prefixes
// of one seed are nested: the 5k suite's long instances are among the 10k suite's.
func Prefix(n, size int, seed uint64) ([]int, error) {
	if size < 0 || size > n {
		return nil, fmt.Errorf("suite: %d instances were asked for, there are %d", size, n)
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	datasets.Shuffle(datasets.NewRand(seed, suiteStream), order)
	prefix := order[:size]
	slices.Sort(prefix)
	return prefix, nil
}

// suiteStream parts the randomness of suites from that of plans with the same seed.
const suiteStream = 0x7375697465 // "suite"

// Mixture draws total instances from parts of the given sizes in proportion to weights, without repetition: nested
// prefixes of each. What a small part cannot give is not made up by others; that is an error.
func Mixture(sizes []int, weights []float64, total int, seed uint64) ([][]int, error) {
	if len(sizes) != len(weights) || len(sizes) == 0 {
		return nil, fmt.Errorf("mixture: %d parts and %d weights", len(sizes), len(weights))
	}
	sum := 0.0
	for k, w := range weights {
		if !(w >= 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("mixture: part %d has weight %v", k, w)
		}
		sum += w
	}
	if sum == 0 {
		return nil, fmt.Errorf("mixture: all weights are 0")
	}
	parts := make([][]int, len(sizes))
	taken, running := 0, 0.0
	for k := range sizes {
		running += weights[k]
		// Rounding the running sum gives exactly total over all parts.
		upTo := int(math.Round(float64(total) * running / sum))
		part, err := Prefix(sizes[k], upTo-taken, seed+uint64(k))
		if err != nil {
			return nil, fmt.Errorf("mixture: part %d: %w", k, err)
		}
		parts[k], taken = part, upTo
	}
	return parts, nil
}
