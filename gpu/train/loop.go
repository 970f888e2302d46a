package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/longalign/longalign-go/datasets"
)

// Batch is the data of one optimizer step.
type Batch struct {
	// MicroBatches in the order of the plan.
	MicroBatches []datasets.Pack
	// Tokens are those of the sequences, without padding; 0 means no padding.
	Tokens int
	// Sequences names the sequences of each micro-batch for messages, by their IDs in
	// the plan; nil means by place.
	Sequences [][]int32
}

// Source gives the data of a step, counted from 0. It must give the same data for the same step in
// every run, for a resumed run asks for the steps after its checkpoint only.
type Source interface {
	Batch(step int) (Batch, error)
}

// SourceFunc is a function as a Source.
type SourceFunc func(step int) (Batch, error)

// Batch calls f.
func (f SourceFunc) Batch(step int) (Batch, error) { return f(step) }

// Cycle takes perStep packs a step in order and wraps at the end.
func Cycle(packs []datasets.Pack, perStep int) (Source, error) {
	if len(packs) == 0 || perStep < 1 {
		return nil, fmt.Errorf("%d packs, %d a step; at least one of each is needed", len(packs), perStep)
	}
	return SourceFunc(func(step int) (Batch, error) {
		b := Batch{MicroBatches: make([]datasets.Pack, perStep)}
		for j := range b.MicroBatches {
			b.MicroBatches[j] = packs[(step*perStep+j)%len(packs)]
		}
		return b, nil
	}), nil
}

// LoopOptions say what happens around the steps. None of it changes the result.
type LoopOptions struct {
	// OnParity gets the certificate that Options.Parity asks for, before the first step of a run.
	OnParity func(Certificate) error
	// OnStep is called after each step with its metrics; an error ends the loop.
	OnStep func(Metrics) error
	// CheckpointEvery steps, and after the last one, Checkpoint gets a snapshot. It is called in
	// the background, one at a time; the steps go on meanwhile. 0: only at the end and on cancellation.
	CheckpointEvery int
	Checkpoint      func(*State) error
	// EvalEvery steps, and after the last one, the held-out loss is measured. 0: never.
	EvalEvery int
	Held      []datasets.Pack
	// StopAfter ends the loop after this many steps in this call; 0: all.
	StopAfter int
}

// Run takes the steps that are left. When ctx ends it finishes nothing half: the state is that after the last
// whole step, a checkpoint of it is written, and ctx's error returned.
func (t *Trainer) Run(ctx context.Context, src Source, lo LoopOptions) (err error) {
	var pending chan error
	wait := func() error {
		if pending == nil {
			return nil
		}
		e := t.dev.Sync() // the checkpoint waits for copies that the device may not have begun
		e = errors.Join(e, <-pending)
		pending = nil
		return e
	}
	saved := t.step
	save := func() error {
		if lo.Checkpoint == nil || saved == t.step {
			return nil
		}
		if err := wait(); err != nil {
			return fmt.Errorf("checkpoint before step %d: %w", t.step, err)
		}
		state, err := t.snapshot(true)
		if err != nil {
			return err
		}
		saved = t.step
		pending = make(chan error, 1)
		go func(done chan<- error) {
			defer state.Release()
			done <- lo.Checkpoint(state)
		}(pending)
		return nil
	}
	defer func() {
		if e := wait(); e != nil && err == nil {
			err = fmt.Errorf("checkpoint: %w", e)
		}
	}()
	taken := 0
	for t.step < t.opts.Steps && (lo.StopAfter == 0 || taken < lo.StopAfter) {
		if ctx.Err() != nil {
			break
		}
		b, err := src.Batch(t.step)
		if err != nil {
			return fmt.Errorf("data of step %d: %w", t.step, err)
		}
		t.names = nil
		if b.Sequences != nil {
			t.names = func(k, i int) string {
				if k < len(b.Sequences) && i < len(b.Sequences[k]) {
					return fmt.Sprint(b.Sequences[k][i])
				}
				return fmt.Sprintf("%d/%d", k, i)
			}
		}
		if t.step == 0 && t.opts.Parity {
			if err := t.certify(ctx, b, lo); err != nil {
				return err
			}
		}
		// The step ends even when ctx does, so that its work is not lost; a
		// step is short against the grace that a process gets.
		mt, err := t.Step(context.WithoutCancel(ctx), b.MicroBatches)
		if err != nil {
			return err
		}
		taken++
		mt.RealTokens = b.Tokens
		last := t.step == t.opts.Steps
		if lo.EvalEvery > 0 && len(lo.Held) > 0 && (t.step%lo.EvalEvery == 0 || last) {
			loss, err := t.Evaluate(ctx, lo.Held)
			if ctx.Err() == nil {
				if err != nil {
					return err
				}
				mt.EvalLoss = &loss
			}
		}
		t.history[len(t.history)-1] = mt
		if lo.OnStep != nil {
			if err := lo.OnStep(mt); err != nil {
				return err
			}
		}
		if lo.CheckpointEvery > 0 && t.step%lo.CheckpointEvery == 0 || last {
			if err := save(); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil && t.step < t.opts.Steps {
		if e := save(); e != nil {
			return e
		}
		return err
	}
	return save()
}

// certify checks loss parity on the first step's data.
func (t *Trainer) certify(ctx context.Context, b Batch, lo LoopOptions) error {
	c, err := t.Parity(ctx, b.MicroBatches, ParityOptions{})
	if err != nil {
		return err
	}
	if lo.OnParity == nil {
		return nil
	}
	return lo.OnParity(c)
}
