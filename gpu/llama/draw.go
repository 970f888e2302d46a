package llama

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// Greedy appends one token to each of several sequences at once and hands visit the likeliest next one (the smallest ID among equals)
// with its log-probability: what a Sampler of temperature 0 makes of Step's logits. Where logits lie in a device's own memory they
// stay there, and the log-probability has float32's accuracy.
//
// Tokens that are drawn, at a temperature, are drawn on the host from Step's logits on every device: what a seed draws is part of
// recorded results, and the numbers of Sampler are not those of gpu.Draw.
func (d *Decoder) Greedy(seqs []*Sequence, ids []int32, visit func(i int, id int32, logProb float64) error) error {
	if _, ok := d.m.dev.(gpu.Sampler); !ok || d.m.dev.Info().Kind == "host" {
		s := NewSampler(0, 0, 0)
		return d.Step(seqs, ids, func(i int, logits []float64) error {
			id, p := s.Next(logits)
			return visit(i, id, p)
		})
	}
	next, logProbs, err := d.Draw(seqs, ids, make([]gpu.Draw, len(seqs)))
	for i := range next {
		if err == nil {
			err = visit(i, next[i], logProbs[i])
		}
	}
	return err
}

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
