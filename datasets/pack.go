package datasets

import "fmt"

// IgnoreIndex labels a token that is not a target, as in Hugging Face trainers.
const IgnoreIndex = -100

// Pack is one micro-batch of training sequences laid end to end, the JSON-lines
// exchange format of packed data. Attention is block-diagonal causal within
// [CuSeqlens[i], CuSeqlens[i+1]) and positions restart there.
//
// A padded micro-batch (naive, sorted) is a Pack too: each row is its sequence
// followed by padding tokens that are labelled IgnoreIndex, all rows equally long.
// Causal attention keeps them from the sequence's targets, so the loss is the same and
// the cost is the padded one.
type Pack struct {
	// InputIDs are the token IDs, length CuSeqlens[len-1].
	InputIDs []int32 `json:"input_ids"`
	// CuSeqlens are the n+1 boundaries of n sequences, from 0, strictly increasing.
	CuSeqlens []int32 `json:"cu_seqlens"`
	// Labels are Hugging Face aligned: Labels[t] labels token t, the shift by one
	// happens inside each sequence. A sequence's first token is never a target.
	// Nil means every token is labelled with itself (pre-training).
	Labels []int32 `json:"labels,omitempty"`
	// Weights are the sequences' weights w_i; nil means 1.
	Weights []float64 `json:"weights,omitempty"`
}

// Sequences returns the number of sequences in p.
func (p *Pack) Sequences() int { return len(p.CuSeqlens) - 1 }

// Targets returns the next-token target of each position, IgnoreIndex where there
// is none, and the number of targets N_i of each sequence.
func (p *Pack) Targets() (targets []int32, counts []int) {
	labels := p.Labels
	if labels == nil {
		labels = p.InputIDs
	}
	targets = make([]int32, len(p.InputIDs))
	counts = make([]int, p.Sequences())
	for i := range counts {
		a, b := p.CuSeqlens[i], p.CuSeqlens[i+1]
		for t := a; t < b-1; t++ {
			targets[t] = labels[t+1]
			if labels[t+1] != IgnoreIndex {
				counts[i]++
			}
		}
		targets[b-1] = IgnoreIndex
	}
	return targets, counts
}

// Continuation is a pack of one sequence, whose targets are the tokens of the answer alone.
func Continuation(prompt, answer []int32) Pack {
	n := len(prompt) + len(answer)
	p := Pack{InputIDs: append(append(make([]int32, 0, n), prompt...), answer...), CuSeqlens: []int32{0, int32(n)}, Labels: make([]int32, n)}
	copy(p.Labels, p.InputIDs)
	for i := range prompt {
		p.Labels[i] = IgnoreIndex
	}
	return p
}

// Validate checks that p is well formed for a vocabulary of vocab tokens (0 skips the
// check of token IDs).
func (p *Pack) Validate(vocab int) error {
	n := len(p.InputIDs)
	switch {
	case len(p.CuSeqlens) < 2 || p.CuSeqlens[0] != 0:
		return fmt.Errorf("cu_seqlens must start at 0 and bound at least one sequence, got %d boundaries", len(p.CuSeqlens))
	case int(p.CuSeqlens[len(p.CuSeqlens)-1]) != n:
		return fmt.Errorf("cu_seqlens ends at %d but there are %d input_ids", p.CuSeqlens[len(p.CuSeqlens)-1], n)
	case p.Labels != nil && len(p.Labels) != n:
		return fmt.Errorf("%d labels for %d input_ids", len(p.Labels), n)
	case p.Weights != nil && len(p.Weights) != p.Sequences():
		return fmt.Errorf("%d weights for %d sequences", len(p.Weights), p.Sequences())
	}
	for i := 1; i < len(p.CuSeqlens); i++ {
		if p.CuSeqlens[i] <= p.CuSeqlens[i-1] {
			return fmt.Errorf("cu_seqlens[%d] = %d does not exceed cu_seqlens[%d] = %d", i, p.CuSeqlens[i], i-1, p.CuSeqlens[i-1])
		}
	}
	for i, w := range p.Weights {
		if !(w >= 0 && w <= 1e30) {
			return fmt.Errorf("weight %d is %v; weights are finite and not negative", i, w)
		}
	}
	if vocab <= 0 {
		return nil
	}
	for t, id := range p.InputIDs {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("input_ids[%d] = %d is outside the vocabulary of %d", t, id, vocab)
		}
	}
	for t, l := range p.Labels {
		if l != IgnoreIndex && (l < 0 || int(l) >= vocab) {
			return fmt.Errorf("labels[%d] = %d is neither -100 nor inside the vocabulary of %d", t, l, vocab)
		}
	}
	return nil
}
