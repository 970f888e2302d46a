package datasets

import "fmt"

// THUDMPlan plans as the published training code of the paper does, from its own two permutations: rows
// is the order of the training rows (its shuffle has no seed), groups the order of the sorted groups (sorted only). A step
// of the result is what its devices take at once: p.BatchSize packs or rows.
//
// Where it differs from NewPlan, sequences are left out; they are in Dropped:
//   - packing: rows of MaxLength tokens and more, for it finds a row's end by its padding and they have none;
//     the last partial pack, which is never written; packs beyond a multiple of BatchSize, the number of devices;
//   - sorted: the N mod BatchSize longest rows.
//
// lengths are as that code sees them (thudm.RowLength); 0 is a row whose end it cannot find.
//
// A pack also closes when a sequence would fill it exactly. The order of equally long rows in its sort
// is not defined; here they keep the order of rows.
func THUDMPlan(lengths []int, p BatchesParams, rows, groupOrder []int32) (Plan, error) {
	p.Compat = CompatTHUDM
	p = p.Defaults()
	if err := p.Validate(); err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	if err := CheckPermutation(rows, len(lengths)); err != nil {
		return Plan{}, fmt.Errorf("plan: the order of rows %w", err)
	}
	clipped := make([]int32, len(lengths))
	for i, n := range lengths {
		if n < 0 {
			return Plan{}, fmt.Errorf("plan: sequence %d has %d tokens", i, n)
		}
		clipped[i] = int32(min(n, p.MaxLength))
	}
	plan := Plan{Method: p.Method, MaxLength: p.MaxLength, OverLength: TruncateRight}
	perStep := p.BatchSize
	if p.Method != MethodPacking {
		perStep *= p.Accumulate
	}
	switch p.Method {
	case MethodPacking:
		packs := thudmPacks(rows, clipped, p.MaxLength, &plan.Dropped)
		whole := packs.len() / perStep * perStep
		for k := range packs.len() {
			if k >= whole {
				plan.Dropped = append(plan.Dropped, packs.at(k)...)
				continue
			}
			plan.addMicroBatch(packs.at(k))
			if (k+1)%perStep == 0 {
				plan.endStep()
			}
		}
	case MethodSorted:
		order := append([]int32(nil), rows...)
		sortByLength(order, clipped)
		whole := len(order) / perStep
		if err := CheckPermutation(groupOrder, whole); err != nil {
			return Plan{}, fmt.Errorf("plan: the order of groups %w", err)
		}
		for _, g := range groupOrder {
			plan.addRows(order[int(g)*perStep:(int(g)+1)*perStep], p.BatchSize)
		}
		plan.Dropped = append(plan.Dropped, order[whole*perStep:]...)
	default:
		for at := 0; at < len(rows); at += perStep {
			plan.addRows(rows[at:min(at+perStep, len(rows))], p.BatchSize)
		}
	}
	if plan.Steps() == 0 {
		return plan, fmt.Errorf("plan: compat: thudm leaves no step: all %d sequences are dropped; remove compat or lower batch_size", len(lengths))
	}
	return plan, nil
}

// addRows adds a step of padded micro-batches.
func (p *Plan) addRows(rows []int32, batchSize int) {
	for at := 0; at < len(rows); at += batchSize {
		p.addMicroBatch(rows[at:min(at+batchSize, len(rows))])
	}
	p.endStep()
}

func thudmPacks(rows, lengths []int32, capacity int, dropped *[]int32) groups {
	var packs groups
	var open []int32
	used := 0
	for _, id := range rows {
		n := int(lengths[id])
		if n == 0 || n >= capacity {
			*dropped = append(*dropped, id)
			continue
		}
		if used+n >= capacity {
			packs.add(open)
			open, used = open[:0], 0
		}
		open = append(open, id)
		used += n
	}
	*dropped = append(*dropped, open...)
	return packs
}

// CheckPermutation says whether order holds each number below n once.
func CheckPermutation(order []int32, n int) error {
	if len(order) != n {
		return fmt.Errorf("has %d entries for %d", len(order), n)
	}
	seen := make([]bool, n)
	for _, i := range order {
		if i < 0 || int(i) >= n || seen[i] {
			return fmt.Errorf("is no permutation: %d is out of range or there twice", i)
		}
		seen[i] = true
	}
	return nil
}

// thudmPlan is THUDMPlan with permutations drawn from p.Seed and the epoch.
func thudmPlan(lengths []int, p BatchesParams, rng *Rand) (Plan, error) {
	rows := Ascending(len(lengths))
	Shuffle(rng, rows)
	groupSize := max(1, p.BatchSize*max(1, p.Accumulate))
	groupOrder := Ascending(len(lengths) / groupSize)
	Shuffle(rng, groupOrder)
	return THUDMPlan(lengths, p, rows, groupOrder)
}

// Ascending returns the numbers from 0 to n − 1 in order.
func Ascending(n int) []int32 {
	s := make([]int32, n)
	for i := range s {
		s[i] = int32(i)
	}
	return s
}

// THUDMFactors are the factors c[k][i] that the published code gives to the summed cross-entropy of
// sequence i of pack k, for a step of len(targets) packs that gpus devices take gpus at a time: it divides by the sequences of each
// gpus packs and averages that over the accumulation, where the paper divides once by the sequences of the
// whole step. Without accumulation the two are equal.
func THUDMFactors(targets [][]int, gpus int) ([][]float64, error) {
	if gpus < 1 || len(targets)%gpus != 0 {
		return nil, fmt.Errorf("compat: %d packs do not divide among %d devices", len(targets), gpus)
	}
	rounds := len(targets) / gpus
	factors := make([][]float64, len(targets))
	for r := range rounds {
		round := targets[r*gpus : (r+1)*gpus]
		c, err := Coefficients(LossLongAlign, round, nil)
		if err != nil {
			return nil, err
		}
		for k := range c {
			for i := range c[k] {
				c[k][i] /= float64(rounds)
			}
			factors[r*gpus+k] = c[k]
		}
	}
	return factors, nil
}
