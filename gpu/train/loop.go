package train

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	// Name names a sequence for messages where Sequences is nil, such as by the place in its file.
	Name func(microBatch, sequence int) string
}

// name returns what messages call a sequence.
func (b Batch) name(microBatch, sequence int) string {
	switch {
	case microBatch < len(b.Sequences) && sequence < len(b.Sequences[microBatch]):
		return fmt.Sprint(b.Sequences[microBatch][sequence])
	case b.Name != nil:
		return b.Name(microBatch, sequence)
	}
	return fmt.Sprintf("%d/%d", microBatch, sequence)
}

// CheckpointError says that a state could not be kept: a resumed run goes on from an earlier one, if there is any.
type CheckpointError struct {
	Steps int // taken
	Err   error
}

func (e *CheckpointError) Error() string {
	return fmt.Sprintf("checkpoint after %d steps: %v", e.Steps, e.Err)
}

// Unwrap returns what went wrong.
func (e *CheckpointError) Unwrap() error { return e.Err }

// maxMicroBatches bounds those of a step; more is a slip of the pen that would fill the memory with bookkeeping.
const maxMicroBatches = 1 << 20

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
	if perStep > maxMicroBatches {
		return nil, fmt.Errorf("%d packs a step; at most %d can be", perStep, maxMicroBatches)
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
	// OnMicroBatch is called after each micro-batch that went through the model, held-out ones too: a sign of life in steps
	// and measurements that take long.
	OnMicroBatch func()
	// CheckpointEvery steps, and after the last one, Checkpoint gets a snapshot. It is called in
	// the background, one at a time; the steps go on meanwhile. 0: only at the end, on cancellation, and when something
	// else than the training ends it. A state whose weights are not finite is never handed on.
	CheckpointEvery int
	Checkpoint      func(*State) error
	// CheckpointInterval is the longest time without a checkpoint, however many steps that is; 0: any.
	CheckpointInterval time.Duration
	// EvalEvery steps, and after the last one, the held-out loss is measured. 0: never.
	EvalEvery int
	Held      []datasets.Pack
	// StopAfter ends the loop after this many steps in this call; 0: all.
	StopAfter int
}

// keeper hands states on their way out to LoopOptions.Checkpoint.
type keeper struct {
	t       *Trainer
	lo      LoopOptions
	pending chan error
	on      int // steps of the state on its way
	saved   int // steps of the last state that was handed on, or that the run began with
	good    int // steps of the last state that is known to be kept
	last    time.Time
}

// wait returns when the state on its way is kept.
func (k *keeper) wait() error {
	if k.pending == nil {
		return nil
	}
	err := k.t.dev.Sync() // the checkpoint waits for copies that the device may not have begun
	err = errors.Join(err, <-k.pending)
	k.pending = nil
	if err != nil {
		return &CheckpointError{k.on, err}
	}
	k.good = k.on
	return nil
}

// save checks the state and begins to keep it.
func (k *keeper) save() error {
	if k.saved == k.t.step {
		return nil
	}
	if err := k.wait(); err != nil {
		return err
	}
	if err := k.t.sound(); err != nil {
		return err
	}
	k.saved, k.last = k.t.step, time.Now()
	if k.lo.Checkpoint == nil {
		return nil
	}
	state, err := k.t.snapshot(true)
	if err != nil {
		return &CheckpointError{k.t.step, err}
	}
	k.pending, k.on = make(chan error, 1), k.t.step
	go func(done chan<- error) {
		defer state.Release()
		done <- k.lo.Checkpoint(state)
	}(k.pending)
	return nil
}

// due reports whether it is time for a checkpoint after the last step.
func (k *keeper) due() bool {
	step := k.t.step
	return step == k.t.opts.Steps || k.lo.CheckpointEvery > 0 && step%k.lo.CheckpointEvery == 0 ||
		k.lo.CheckpointInterval > 0 && time.Since(k.last) >= k.lo.CheckpointInterval
}

// end completes the error that a run ends with: no step is lost with it, and a divergence says what is left. The state
// before a step that diverged is suspect; it is kept only where there is no other.
func (k *keeper) end(err error) error {
	var diverged *DivergedError
	if err != nil {
		failed := k.wait()
		again := errors.As(err, new(*CheckpointError)) || failed != nil // another would fail too
		if !again && (!errors.As(err, &diverged) || k.good == 0 && !diverged.Taken) {
			if e := k.save(); failed == nil && errors.As(e, new(*CheckpointError)) {
				failed = e
			}
		}
		err = errors.Join(err, failed)
	}
	if failed := k.wait(); failed != nil {
		err = errors.Join(err, failed)
	}
	if diverged != nil {
		if diverged.Kept = k.good; k.good == 0 {
			diverged.Kept = -1
		}
	}
	return err
}

// Run takes the steps that are left. Whatever ends it, it finishes nothing half: the state is that after the last whole step, and
// a checkpoint of it is written, unless the training diverged (*DivergedError). When ctx ends, its error is returned. A checkpoint that
// cannot be written is a *CheckpointError.
func (t *Trainer) Run(ctx context.Context, src Source, lo LoopOptions) (err error) {
	k := &keeper{t: t, lo: lo, saved: t.step, good: t.step, last: time.Now()}
	defer func() { err = k.end(err) }()
	t.passed = lo.OnMicroBatch
	defer func() { t.passed = nil }()
	if err := t.watch(ctx, lo); err != nil {
		return err
	}
	taken := 0
	for t.step < t.opts.Steps && (lo.StopAfter == 0 || taken < lo.StopAfter) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := src.Batch(t.step)
		if err != nil {
			return fmt.Errorf("data of step %d: %w", t.step, err)
		}
		t.names = b.name
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
		t.history[len(t.history)-1] = mt
		if err := t.watch(ctx, lo); err != nil {
			return err
		}
		mt = t.history[len(t.history)-1]
		if lo.OnStep != nil {
			if err := lo.OnStep(mt); err != nil {
				return err
			}
		}
		if k.due() {
			if err := k.save(); err != nil {
				return err
			}
		}
	}
	if err := k.save(); err != nil {
		return err
	}
	if t.unwatched(lo) != nil {
		return ctx.Err() // the last measurement was interrupted
	}
	return nil
}

// unwatched returns the last step if a held-out loss is due after it and missing.
func (t *Trainer) unwatched(lo LoopOptions) *Metrics {
	if lo.EvalEvery <= 0 || len(lo.Held) == 0 || len(t.history) == 0 || t.step%lo.EvalEvery != 0 && t.step != t.opts.Steps {
		return nil
	}
	if last := &t.history[len(t.history)-1]; last.EvalLoss == nil {
		return last
	}
	return nil
}

// watch measures the held-out loss of the last step where it is due and missing. What interrupts it is left to the caller to see;
// the run that goes on makes up for it, so that no point of the curve is lost.
func (t *Trainer) watch(ctx context.Context, lo LoopOptions) error {
	last := t.unwatched(lo)
	if last == nil {
		return nil
	}
	loss, err := t.Evaluate(ctx, lo.Held)
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		last.EvalLoss = &loss
	}
	return err
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
