package datasets

import "fmt"

// LossShare is how much of a run's loss falls on the sequences of one answer length.
type LossShare struct {
	// From and To bound the targets of the bucket's sequences, both inclusive; To 0 has no bound.
	From int `json:"from"`
	To   int `json:"to,omitempty"`
	// Sequences and Targets count what is in the bucket.
	Sequences int   `json:"sequences"`
	Targets   int64 `json:"targets"`
	// SequenceShare and TargetShare are the bucket's shares of all sequences and targets.
	SequenceShare float64 `json:"sequence_share"`
	TargetShare   float64 `json:"target_share"`
	// Share is the bucket's share of the weight that the steps' losses give to targets. Under
	// LossLongAlign with weights 1 it is close to SequenceShare, under LossToken to TargetShare; the difference
	// is that steps differ in size.
	Share float64 `json:"share"`
}

// LossShares returns for each answer-length bucket its share of the loss: each sequence's
// factor c_i times its N_i, summed over the steps of p and divided by the sum over all. It is exact, a property of the
// plan and the loss, not of a model: what the shares would be if every target had the same cross-entropy.
//
// targets holds N_i by sequence ID, weights w_i (nil for 1). bounds are the ascending upper ends of the buckets; one
// more takes what is longer. Sequences without targets are in no bucket.
func (p Plan) LossShares(loss Loss, targets []int, weights []float64, bounds []int) ([]LossShare, error) {
	shares := make([]LossShare, len(bounds)+1)
	shares[0].From = 1
	for b, bound := range bounds {
		if bound < shares[b].From {
			return nil, fmt.Errorf("loss shares: bounds %v do not ascend from 1", bounds)
		}
		shares[b].To, shares[b+1].From = bound, bound+1
	}
	var total float64
	var sequences int
	var allTargets int64
	for s := range p.Steps() {
		from, to := p.MicroBatches(s)
		ns, ws := make([][]int, to-from), make([][]float64, to-from)
		for m := from; m < to; m++ {
			for _, id := range p.MicroBatch(m) {
				if int(id) >= len(targets) || weights != nil && int(id) >= len(weights) {
					return nil, fmt.Errorf("loss shares: sequence %d has no number of targets or no weight", id)
				}
				ns[m-from] = append(ns[m-from], targets[id])
				w := 1.0
				if weights != nil {
					w = weights[id]
				}
				ws[m-from] = append(ws[m-from], w)
			}
		}
		factors, err := Coefficients(loss, ns, ws)
		if err != nil {
			return nil, err
		}
		for k := range ns {
			for i, n := range ns[k] {
				if n == 0 {
					continue
				}
				b := 0
				for b < len(bounds) && n > bounds[b] {
					b++
				}
				share := factors[k][i] * float64(n)
				shares[b].Share += share
				shares[b].Sequences++
				shares[b].Targets += int64(n)
				total += share
				sequences++
				allTargets += int64(n)
			}
		}
	}
	for b := range shares {
		if sequences > 0 {
			shares[b].SequenceShare = float64(shares[b].Sequences) / float64(sequences)
			shares[b].TargetShare = float64(shares[b].Targets) / float64(allTargets)
		}
		if total > 0 {
			shares[b].Share /= total
		}
	}
	return shares, nil
}
