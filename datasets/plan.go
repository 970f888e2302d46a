package datasets

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
)

// Plan is one epoch's optimizer steps, each a list of micro-batches, each a list of
// sequence IDs. It is three flat arrays, 4 bytes a sequence and 4 a micro-batch, so that 10⁷ sequences stay small.
type Plan struct {
	// Method is the batching method; it decides whether micro-batches are padded or packed.
	Method Method
	// MaxLength and OverLength are how longer sequences are cut.
	MaxLength  int
	OverLength OverLength
	// IDs are the sequences in training order.
	IDs []int32
	// MicroBatchEnds[m] is the index in IDs where micro-batch m ends.
	MicroBatchEnds []int32
	// StepEnds[s] is the index in MicroBatchEnds where step s ends.
	StepEnds []int32
	// Dropped are the sequences left out by DropOverLength, in order.
	Dropped []int32
}

func (p *Plan) grow(ids, batches, steps int) {
	p.IDs = slices.Grow(p.IDs, ids)
	p.MicroBatchEnds = slices.Grow(p.MicroBatchEnds, batches)
	p.StepEnds = slices.Grow(p.StepEnds, steps)
}

func (p *Plan) addMicroBatch(ids []int32) {
	p.IDs = append(p.IDs, ids...)
	p.MicroBatchEnds = append(p.MicroBatchEnds, int32(len(p.IDs)))
}

func (p *Plan) endStep() { p.StepEnds = append(p.StepEnds, int32(len(p.MicroBatchEnds))) }

// Steps returns the number of optimizer steps.
func (p Plan) Steps() int { return len(p.StepEnds) }

// MicroBatches returns the indices [from, to) of the micro-batches of step s.
func (p Plan) MicroBatches(s int) (from, to int) {
	if s > 0 {
		from = int(p.StepEnds[s-1])
	}
	return from, int(p.StepEnds[s])
}

// MicroBatch returns the sequence IDs of micro-batch m. The slice belongs to p.
func (p Plan) MicroBatch(m int) []int32 {
	from := int32(0)
	if m > 0 {
		from = p.MicroBatchEnds[m-1]
	}
	return p.IDs[from:p.MicroBatchEnds[m]]
}

// StepSequences returns the number of sequences of step s.
func (p Plan) StepSequences(s int) int {
	var n int
	from, to := p.MicroBatches(s)
	for m := from; m < to; m++ {
		n += len(p.MicroBatch(m))
	}
	return n
}

// Packed says whether micro-batches are packs; otherwise they are padded.
func (p Plan) Packed() bool { return p.Method == MethodPacking }

// WriteJSON writes p as JSON lines, one step a line: {"step":0,"micro_batches":[[0,5],[3]]}.
func (p Plan) WriteJSON(w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<16)
	var line []byte
	for s := range p.Steps() {
		line = append(line[:0], `{"step":`...)
		line = strconv.AppendInt(line, int64(s), 10)
		line = append(line, `,"micro_batches":[`...)
		from, to := p.MicroBatches(s)
		for m := from; m < to; m++ {
			if m > from {
				line = append(line, ',')
			}
			line = append(line, '[')
			for i, id := range p.MicroBatch(m) {
				if i > 0 {
					line = append(line, ',')
				}
				line = strconv.AppendInt(line, int64(id), 10)
			}
			line = append(line, ']')
		}
		line = append(line, "]}\n"...)
		if _, err := b.Write(line); err != nil {
			return fmt.Errorf("write plan: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}

// ReadPlan reads what WriteJSON wrote. How the plan was made is not part of the lines: the
// caller sets Method, MaxLength and OverLength.
func ReadPlan(r io.Reader) (Plan, error) {
	var p Plan
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	for {
		var line struct {
			Step         *int      `json:"step"`
			MicroBatches [][]int32 `json:"micro_batches"`
		}
		err := dec.Decode(&line)
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return Plan{}, fmt.Errorf("plan line %d: %w", p.Steps()+1, err)
		}
		if line.Step == nil || *line.Step != p.Steps() {
			return Plan{}, fmt.Errorf("plan line %d: steps must be numbered from 0 in order", p.Steps()+1)
		}
		for m, ids := range line.MicroBatches {
			if len(ids) == 0 {
				return Plan{}, fmt.Errorf("plan line %d: micro-batch %d is empty", p.Steps()+1, m)
			}
			for _, id := range ids {
				if id < 0 {
					return Plan{}, fmt.Errorf("plan line %d: sequence ID %d is negative", p.Steps()+1, id)
				}
			}
			p.addMicroBatch(ids)
		}
		if len(line.MicroBatches) == 0 {
			return Plan{}, fmt.Errorf("plan line %d: the step has no micro-batches", p.Steps()+1)
		}
		p.endStep()
	}
}

// Check says whether p trains each of n sequences exactly once or drops it.
func (p Plan) Check(n int) error {
	seen := make([]bool, n)
	for _, ids := range [][]int32{p.IDs, p.Dropped} {
		for _, id := range ids {
			if int(id) >= n || id < 0 {
				return fmt.Errorf("plan: sequence %d does not exist, there are %d", id, n)
			}
			if seen[id] {
				return fmt.Errorf("plan: sequence %d is there twice", id)
			}
			seen[id] = true
		}
	}
	if i := slices.Index(seen, false); i >= 0 {
		return fmt.Errorf("plan: sequence %d is missing", i)
	}
	return nil
}

// PlanStats describes a plan. Means and deviations over steps leave out the last step, which
// may be partial, unless it is the only one; deviations are of the population.
type PlanStats struct {
	Sequences    int   `json:"sequences"`
	Tokens       int64 `json:"tokens"`
	PaddedTokens int64 `json:"padded_tokens"` // rows × longest row, or packs × max length
	Steps        int   `json:"steps"`
	MicroBatches int   `json:"micro_batches"`
	// Efficiency is Tokens / PaddedTokens.
	Efficiency           float64 `json:"efficiency"`
	SequencesPerStepMean float64 `json:"sequences_per_step_mean"`
	SequencesPerStepSD   float64 `json:"sequences_per_step_sd"`
	// Truncated and Dropped count sequences longer than the maximum.
	Truncated int `json:"truncated"`
	Dropped   int `json:"dropped"`
	// Seconds is how long planning took, where it was measured.
	Seconds float64 `json:"seconds"`
}

// Stats describes p over sequences of the given lengths.
func (p Plan) Stats(lengths []int) PlanStats {
	st := PlanStats{Sequences: len(p.IDs), Steps: p.Steps(), MicroBatches: len(p.MicroBatchEnds), Dropped: len(p.Dropped)}
	for m := range p.MicroBatchEnds {
		ids := p.MicroBatch(m)
		longest := 0
		for _, id := range ids {
			n := p.clip(lengths[id])
			if n < lengths[id] {
				st.Truncated++
			}
			longest = max(longest, n)
			st.Tokens += int64(n)
		}
		if p.Packed() {
			st.PaddedTokens += int64(p.MaxLength)
		} else {
			st.PaddedTokens += int64(longest) * int64(len(ids))
		}
	}
	if st.PaddedTokens > 0 {
		st.Efficiency = float64(st.Tokens) / float64(st.PaddedTokens)
	}
	if p.Steps() == 0 {
		return st
	}
	whole := max(1, p.Steps()-1)
	sum, squares := 0, 0.0
	for s := range whole {
		sum += p.StepSequences(s)
	}
	st.SequencesPerStepMean = float64(sum) / float64(whole)
	for s := range whole {
		d := float64(p.StepSequences(s)) - st.SequencesPerStepMean
		squares += d * d
	}
	st.SequencesPerStepSD = math.Sqrt(squares / float64(whole))
	return st
}

func (p Plan) clip(n int) int {
	if p.MaxLength > 0 {
		return min(n, p.MaxLength)
	}
	return n
}
