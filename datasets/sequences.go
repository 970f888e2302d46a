package datasets

import "fmt"

// Sequence is one tokenized training example.
type Sequence struct {
	// IDs are its tokens.
	IDs []int32
	// Labels are aligned with IDs; IgnoreIndex marks tokens that are no target. Nil
	// labels every token with itself.
	Labels []int32
}

// Targets returns N_i, the number of target tokens. The first token is never one.
func (s Sequence) Targets() int {
	if s.Labels == nil {
		return max(0, len(s.IDs)-1)
	}
	n := 0
	for _, l := range s.Labels[min(1, len(s.Labels)):] {
		if l != IgnoreIndex {
			n++
		}
	}
	return n
}

// SequenceSource gives sequences by ID, 0 … Len()-1. What it returns may share its
// memory and is only read.
type SequenceSource interface {
	Len() int
	Sequence(id int) (Sequence, error)
}

// Sequences is a SequenceSource in memory.
type Sequences []Sequence

// Len returns the number of sequences.
func (s Sequences) Len() int { return len(s) }

// Sequence returns sequence id.
func (s Sequences) Sequence(id int) (Sequence, error) {
	if id < 0 || id >= len(s) {
		return Sequence{}, fmt.Errorf("sequence %d does not exist, there are %d", id, len(s))
	}
	return s[id], nil
}

// Lengths returns the lengths in tokens of all sequences.
func (s Sequences) Lengths() []int {
	lengths := make([]int, len(s))
	for i := range s {
		lengths[i] = len(s[i].IDs)
	}
	return lengths
}

// Truncate cuts s to at most n tokens. keep is false if policy drops it; ErrorOverLength
// gives an OverLengthError. The result shares s's memory unless the middle was cut out.
func (s Sequence) Truncate(n int, policy OverLength) (cut Sequence, keep bool, err error) {
	if len(s.IDs) <= n {
		return s, true, nil
	}
	head, tail := n, 0
	switch policy {
	case DropOverLength:
		return Sequence{}, false, nil
	case ErrorOverLength:
		return Sequence{}, false, &OverLengthError{Sequence: -1, Length: len(s.IDs), MaxLength: n}
	case TruncateMiddle:
		tail = n / 2
		head = n - tail
	case TruncateRight:
	default:
		return Sequence{}, false, paramError("over_length", "%q is not known; use truncate-right, truncate-middle, drop or error", policy)
	}
	cut.IDs = joinEnds(s.IDs, head, tail)
	if s.Labels == nil {
		return cut, true, nil
	}
	cut.Labels = joinEnds(s.Labels, head, tail)
	if tail > 0 && cut.Labels[head] != IgnoreIndex {
		// The token before the cut never preceded this one: predicting it would be wrong.
		cut.Labels[head] = IgnoreIndex
	}
	return cut, true, nil
}

func joinEnds(s []int32, head, tail int) []int32 {
	if tail == 0 {
		return s[:head:head]
	}
	joined := make([]int32, 0, head+tail)
	return append(append(joined, s[:head]...), s[len(s)-tail:]...)
}

// Packs returns the micro-batches of step s, cut to the plan's MaxLength. Packed ones are sequences
// end to end; padded ones are rows filled up to the longest with pad tokens that are labelled
// IgnoreIndex. weights holds w_i by sequence ID; nil means 1.
func (p Plan) Packs(s int, seqs SequenceSource, pad int32, weights []float64) ([]Pack, error) {
	from, to := p.MicroBatches(s)
	packs := make([]Pack, 0, to-from)
	for m := from; m < to; m++ {
		pack, err := p.materialize(p.MicroBatch(m), seqs, pad, weights)
		if err != nil {
			return nil, fmt.Errorf("step %d, micro-batch %d: %w", s, m-from, err)
		}
		packs = append(packs, pack)
	}
	return packs, nil
}

// cut truncates sequence id to the plan's maximum.
func (p Plan) cut(id int32, s Sequence) (Sequence, error) {
	if len(s.IDs) == 0 || s.Labels != nil && len(s.Labels) != len(s.IDs) {
		return Sequence{}, fmt.Errorf("sequence %d has %d tokens and %d labels", id, len(s.IDs), len(s.Labels))
	}
	if p.MaxLength == 0 {
		return s, nil
	}
	cut, keep, err := s.Truncate(p.MaxLength, p.OverLength)
	switch {
	case err != nil:
		return Sequence{}, fmt.Errorf("sequence %d: %w", id, err)
	case !keep:
		return Sequence{}, fmt.Errorf("sequence %d has %d tokens and should have been dropped; the plan was made for other sequences", id, len(s.IDs))
	}
	return cut, nil
}

func (p Plan) materialize(ids []int32, seqs SequenceSource, pad int32, weights []float64) (Pack, error) {
	rows := make([]Sequence, len(ids))
	total, longest := 0, 0
	for i, id := range ids {
		row, err := seqs.Sequence(int(id))
		if err != nil {
			return Pack{}, err
		}
		if row, err = p.cut(id, row); err != nil {
			return Pack{}, err
		}
		rows[i] = row
		total += len(row.IDs)
		longest = max(longest, len(row.IDs))
	}
	if !p.Packed() {
		total = longest * len(rows)
	}
	pack := Pack{InputIDs: make([]int32, 0, total), Labels: make([]int32, 0, total), CuSeqlens: make([]int32, 1, len(rows)+1)}
	for i, row := range rows {
		pack.InputIDs = append(pack.InputIDs, row.IDs...)
		if row.Labels == nil {
			pack.Labels = append(pack.Labels, row.IDs...)
		} else {
			pack.Labels = append(pack.Labels, row.Labels...)
		}
		if !p.Packed() {
			for range longest - len(row.IDs) {
				pack.InputIDs = append(pack.InputIDs, pad)
				pack.Labels = append(pack.Labels, IgnoreIndex)
			}
		}
		pack.CuSeqlens = append(pack.CuSeqlens, int32(len(pack.InputIDs)))
		if weights != nil {
			pack.Weights = append(pack.Weights, weights[ids[i]])
		}
	}
	return pack, nil
}
