package datasets

import "fmt"

// Loss names how the cross-entropies of one optimizer step are weighted.
// ℓ_it is the cross-entropy of target t of sequence i, N_i its number of targets,
// w_i its weight; sequences with N_i = 0 count nowhere.
type Loss string

// The losses of one optimizer step: all ranks, all micro-batches.
const (
	// LossLongAlign is Σ_i w_i (1/N_i) Σ_t ℓ_it / Σ_i w_i: every sequence counts
	// alike (LongAlign, Eq. 2 = Eq. 4).
	LossLongAlign Loss = "longalign"
	// LossPack is (1/K) Σ_k Σ_{i∈k,t} ℓ_it / Σ_{i∈k} N_i over the K micro-batches
	// (packs) of the step, those without targets counted in K: packing without weighting (Eq. 3).
	LossPack Loss = "pack"
	// LossToken is Σ_it ℓ_it / Σ_i N_i: every target counts alike.
	LossToken Loss = "token"
)

// ParseLoss returns the loss named s.
func ParseLoss(s string) (Loss, error) {
	switch l := Loss(s); l {
	case LossLongAlign, LossPack, LossToken:
		return l, nil
	}
	return "", fmt.Errorf("loss %q is not known; use longalign, pack or token", s)
}

// Coefficients returns for each micro-batch k of one optimizer step and each
// sequence i in it the factor c[k][i] of that sequence's summed cross-entropy, so that
// the step's loss is Σ_k Σ_i c[k][i] Σ_t ℓ_it. targets holds N_i and weights
// w_i, both indexed [micro-batch][sequence]; nil weights mean 1.
//
// The factors depend on the whole step and on nothing else: not on how
// micro-batches are spread over devices or padded. A sequence without targets
// gets 0. A step without any target gets all zeros.
func Coefficients(loss Loss, targets [][]int, weights [][]float64) ([][]float64, error) {
	var weightSum float64
	var targetSum int
	for k, ns := range targets {
		if weights != nil && len(weights[k]) != len(ns) {
			return nil, fmt.Errorf("loss: micro-batch %d has %d sequences and %d weights", k, len(ns), len(weights[k]))
		}
		for i, n := range ns {
			if n == 0 {
				continue
			}
			targetSum += n
			if weights == nil {
				weightSum++
			} else {
				weightSum += weights[k][i]
			}
		}
	}
	c := make([][]float64, len(targets))
	for k, ns := range targets {
		c[k] = make([]float64, len(ns))
		inPack := 0
		for _, n := range ns {
			inPack += n
		}
		for i, n := range ns {
			if n == 0 {
				continue
			}
			switch loss {
			case LossLongAlign:
				w := 1.0
				if weights != nil {
					w = weights[k][i]
				}
				if weightSum != 0 {
					c[k][i] = w / (float64(n) * weightSum)
				}
			case LossToken:
				c[k][i] = 1 / float64(targetSum)
			case LossPack:
				c[k][i] = 1 / (float64(len(targets)) * float64(inPack))
			default:
				return nil, fmt.Errorf("loss %q is not known; use longalign, pack or token", loss)
			}
		}
	}
	return c, nil
}
