package llama

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// Draw appends one token to each of several sequences at once and draws the next ones on the device, whose logits stay there. It
// returns them with their log-probabilities under the model.
func (d *Decoder) Draw(seqs []*Sequence, ids []int32, draws []gpu.Draw) (next []int32, logProbs []float64, err error) {
	m, v := d.m, d.m.cfg.Vocab
	sampler, ok := m.dev.(gpu.Sampler)
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("the %s device draws no tokens; use Step", m.dev.Info().Kind)
	case len(ids) != len(seqs) || len(draws) != len(seqs):
		return nil, nil, fmt.Errorf("%d sequences, %d tokens and %d draws; there is one of each a sequence", len(seqs), len(ids), len(draws))
	}
	next, logProbs = make([]int32, len(seqs)), make([]float64, len(seqs))
	for start := 0; start < len(seqs); start += logitRows {
		n := min(logitRows, len(seqs)-start)
		segments := make([]segment, n)
		for i := range segments {
			segments[i] = segment{seqs[start+i], ids[start+i : start+i+1]}
		}
		a, err := d.forwardAgain(segments)
		if err != nil {
			return nil, nil, err
		}
		m.dev.Linear(d.logits.Slice(0, n*v), a.h.Slice(0, n*m.cfg.Hidden), m.head.Linear)
		sampler.Sample(next[start:start+n], logProbs[start:start+n], d.logits.Slice(0, n*v), v, draws[start:start+n])
		if err := m.dev.Sync(); err != nil {
			return nil, nil, err
		}
	}
	return next, logProbs, nil
}
