package datasets

import "fmt"

// Ledger accounts for every token between the tokenizer and the model. Counts are tokens,
// summed over epochs. Two sums must agree:
//
//	Input    = Trained + Prompt + Truncated + Dropped   (nothing vanishes)
//	Computed = Trained + Prompt + Padding               (nothing appears)
type Ledger struct {
	// Input is what the tokenizer gave.
	Input int64 `json:"input"`
	// Trained are targets.
	Trained int64 `json:"trained"`
	// Prompt are tokens the model reads and is not trained on: prompts, and each
	// sequence's first token.
	Prompt int64 `json:"prompt"`
	// Truncated were cut off over-long sequences.
	Truncated int64 `json:"truncated"`
	// Dropped are all tokens of sequences that were left out.
	Dropped int64 `json:"dropped"`
	// Padding fills rows up to the longest of their micro-batch. Packs are not padded.
	Padding int64 `json:"padding"`
	// Computed is what goes through the model; 0 before batches are made.
	Computed int64 `json:"computed"`
}

// LedgerError is a ledger whose sums differ.
type LedgerError struct {
	Ledger Ledger
	Reason string
}

func (e *LedgerError) Error() string {
	return fmt.Sprintf("token ledger does not balance: %s (%+v); the tokens, the plan and the run do not belong together, rebuild the tokens", e.Reason, e.Ledger)
}

// Add adds o to l.
func (l *Ledger) Add(o Ledger) {
	l.Input += o.Input
	l.Trained += o.Trained
	l.Prompt += o.Prompt
	l.Truncated += o.Truncated
	l.Dropped += o.Dropped
	l.Padding += o.Padding
	l.Computed += o.Computed
}

// Balance returns a LedgerError unless the sums agree.
func (l Ledger) Balance() error {
	for _, n := range []int64{l.Input, l.Trained, l.Prompt, l.Truncated, l.Dropped, l.Padding, l.Computed} {
		if n < 0 {
			return &LedgerError{l, "a count is negative"}
		}
	}
	if out := l.Trained + l.Prompt + l.Truncated + l.Dropped; l.Input != out {
		return &LedgerError{l, fmt.Sprintf("%d tokens came in, %d are accounted for", l.Input, out)}
	}
	if in := l.Trained + l.Prompt + l.Padding; (l.Computed != 0 || l.Padding != 0) && l.Computed != in {
		return &LedgerError{l, fmt.Sprintf("%d tokens were computed, %d were given", l.Computed, in)}
	}
	return nil
}

// Confirm compares l with what a trainer counted: tokens through the model and targets
// with a loss. A difference is a LedgerError.
func (l Ledger) Confirm(computed, trained int64) error {
	if err := l.Balance(); err != nil {
		return err
	}
	if l.Computed != computed || l.Trained != trained {
		return &LedgerError{l, fmt.Sprintf("the trainer computed %d tokens and trained on %d", computed, trained)}
	}
	return nil
}

// Kept enters a sequence that was n tokens long before it was truncated to kept.
func (l *Ledger) Kept(n int, kept Sequence) {
	targets := kept.Targets()
	l.Input += int64(n)
	l.Trained += int64(targets)
	l.Prompt += int64(len(kept.IDs) - targets)
	l.Truncated += int64(n - len(kept.IDs))
}

// Drop enters a sequence of n tokens that is left out.
func (l *Ledger) Drop(n int) {
	l.Input += int64(n)
	l.Dropped += int64(n)
}

// CountedSource is a SequenceSource that knows the tokens and the targets of a sequence without reading it.
type CountedSource interface {
	SequenceSource
	Counts(id int) (tokens, targets int)
}

// Ledger accounts for one epoch of p over seqs. Of a CountedSource it reads only the sequences that p cuts.
func (p Plan) Ledger(seqs SequenceSource) (Ledger, error) {
	var l Ledger
	counted, _ := seqs.(CountedSource)
	enter := func(id int32) (kept int, err error) {
		if counted != nil && int(id) < counted.Len() {
			if n, targets := counted.Counts(int(id)); n > 0 && (p.MaxLength == 0 || n <= p.MaxLength) {
				l.Input += int64(n)
				l.Trained += int64(targets)
				l.Prompt += int64(n - targets)
				return n, nil
			}
		}
		s, err := seqs.Sequence(int(id))
		if err != nil {
			return 0, err
		}
		cut, err := p.cut(id, s)
		if err != nil {
			return 0, err
		}
		l.Kept(len(s.IDs), cut)
		return len(cut.IDs), nil
	}
	for m := range p.MicroBatchEnds {
		longest, rows := 0, p.MicroBatch(m)
		var real int64
		for _, id := range rows {
			n, err := enter(id)
			if err != nil {
				return Ledger{}, fmt.Errorf("token ledger: %w", err)
			}
			longest = max(longest, n)
			real += int64(n)
		}
		computed := real
		if !p.Packed() {
			computed = int64(longest) * int64(len(rows))
		}
		l.Computed += computed
		l.Padding += computed - real
	}
	for _, id := range p.Dropped {
		if counted != nil && int(id) < counted.Len() {
			n, _ := counted.Counts(int(id))
			l.Drop(n)
			continue
		}
		s, err := seqs.Sequence(int(id))
		if err != nil {
			return Ledger{}, fmt.Errorf("token ledger: %w", err)
		}
		l.Drop(len(s.IDs))
	}
	return l, l.Balance()
}
