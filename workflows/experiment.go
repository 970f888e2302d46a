package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// experiment is the recipe: one method, one seed, from documents to scores.
func (s *stages) experiment(ctx workflow.Context, cell Cell) (Scored, error) {
	documents, tokenizer, err := s.corpus(ctx, cell)
	if err != nil {
		return Scored{}, err
	}
	instructions, err := s.instructions(ctx, cell, documents, tokenizer)
	if err != nil {
		return Scored{}, err
	}
	tokens, err := s.tokens(ctx, cell, instructions, tokenizer)
	if err != nil {
		return Scored{}, err
	}
	batches, err := s.batches(ctx, cell, tokens)
	if err != nil {
		return Scored{}, err
	}
	questions, err := s.questions(ctx, cell, tokenizer)
	if err != nil {
		return Scored{}, err
	}
	base, err := s.base(ctx, cell, documents, tokenizer)
	if err != nil {
		return Scored{}, err
	}
	checkpoint, err := s.checkpoint(ctx, cell, base, tokenizer, tokens, batches, instructions)
	if err != nil {
		return Scored{}, err
	}
	predictions, err := s.predictions(ctx, cell, checkpoint, instructions)
	if err != nil {
		return Scored{}, err
	}
	scores, err := s.scores(ctx, cell, predictions)
	if err != nil {
		return Scored{}, err
	}
	benchmarks, err := s.benchmarks(ctx, cell, questions, checkpoint, tokenizer)
	if err != nil {
		return Scored{}, err
	}
	return Scored{Documents: documents, Instructions: instructions, Tokens: tokens, Batches: batches, Checkpoint: checkpoint, Scores: scores, Benchmarks: benchmarks}, nil
}

// Scored holds what the tables need of one cell.
type Scored struct {
	Documents, Instructions, Tokens, Batches, Checkpoint, Scores artifact.Ref
	Benchmarks                                                   inputs // scores by benchmark
}

// StudyInput starts a run. Continued runs carry how far they are.
type StudyInput struct {
	Spec Spec `json:"spec"`
	// Next is the first cell not yet run, and Failed says why cells failed; both are set when a run continues as new.
	Next   int               `json:"next,omitempty"`
	Failed map[string]string `json:"failed,omitempty"`
}

// StudyResult is a run's outcome.
type StudyResult struct {
	Tables artifact.Ref `json:"tables"`
	// Failed says why cells failed, by cell. The tables show them as incomplete.
	Failed map[string]string `json:"failed,omitempty"`
}

// window bounds how many cells run at once, and so the history between two continuations.
const window = 50

// Study runs a grid of experiments that share stages, and makes the tables. A single
// experiment is a grid of one.
func Study(ctx workflow.Context, in StudyInput) (StudyResult, error) {
	s := newStages(ctx, in.Spec)
	cells, err := in.Spec.Cells()
	if err != nil {
		return StudyResult{}, temporal.NewNonRetryableApplicationError(err.Error(), activities.BadConfig, nil)
	}
	s.progress.state.Experiment, s.progress.state.Cells, s.progress.state.CellsDone = in.Spec.Name, len(cells), in.Next
	if in.Failed == nil {
		in.Failed = map[string]string{}
	}
	run := runOf(ctx, in.Spec, cells)
	if in.Next == 0 {
		if err := s.record(ctx, run.opened(workflow.Now(ctx))); err != nil {
			return StudyResult{}, err
		}
	}
	result, err := s.study(ctx, &in, cells)
	if workflow.IsContinueAsNewError(err) {
		return result, err
	}
	// The record is written even when the run was cancelled.
	closing, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if recordErr := s.record(closing, run.closed(workflow.Now(ctx), result, s.progress, err)); err == nil {
		err = recordErr
	}
	if err != nil {
		s.progress.say(closing, failureDetails(err))
		return result, err
	}
	workflow.SetCurrentDetails(ctx, tablesDetails(s.progress.state, result.Tables, workflow.GetInfo(ctx).Namespace))
	return result, nil
}

// study runs the cells window by window, then the tables over all of them.
func (s *stages) study(ctx workflow.Context, in *StudyInput, cells []Cell) (StudyResult, error) {
	var firstErr error
	scored := map[string]Scored{}
	for in.Next < len(cells) {
		batch := cells[in.Next:min(in.Next+window, len(cells))]
		if err := s.cells(ctx, in, batch, scored, &firstErr); err != nil {
			return StudyResult{Failed: in.Failed}, err
		}
		in.Next += len(batch)
		if in.Next < len(cells) && workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			// What these cells made is in the store; the continued run finds it there.
			if err := s.record(ctx, activities.RunUpdate{ID: runID(ctx), Uses: s.progress.take()}); err != nil {
				return StudyResult{}, err
			}
			return StudyResult{}, workflow.NewContinueAsNewError(ctx, Study, *in)
		}
	}
	if len(in.Failed) == len(cells) {
		return StudyResult{Failed: in.Failed}, firstErr
	}
	// Cells run before a continuation are resolved again: seconds, since the store has all their results.
	for _, cell := range cells {
		if _, ok := scored[cell.Name]; ok || in.Failed[cell.Name] != "" {
			continue
		}
		done, err := s.experiment(ctx, cell)
		if err != nil {
			return StudyResult{Failed: in.Failed}, err
		}
		scored[cell.Name] = done
	}
	tables, err := s.tables(ctx, in.Spec, cells, scored, in.Failed)
	return StudyResult{Tables: tables, Failed: in.Failed}, err
}

// cells runs a window of cells at once and waits for all of them. A failed cell does not stop the others;
// a cancelled run stops all.
func (s *stages) cells(ctx workflow.Context, in *StudyInput, batch []Cell, scored map[string]Scored, firstErr *error) error {
	wg := workflow.NewWaitGroup(ctx)
	for _, cell := range batch {
		wg.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wg.Done()
			done, err := s.experiment(ctx, cell)
			if ctx.Err() != nil && temporal.IsCanceledError(err) {
				return // the run was cancelled, which is no failure of the cell
			}
			s.progress.state.CellsDone++
			if err == nil {
				scored[cell.Name] = done
				return
			}
			if *firstErr == nil {
				*firstErr = err
			}
			in.Failed[cell.Name] = cause(err)
			s.progress.state.Failed = sortedKeys(in.Failed)
		})
	}
	wg.Wait(ctx)
	return ctx.Err()
}

// record writes the run record in the store, so that lists and reports need no Temporal.
func (s *stages) record(ctx workflow.Context, u activities.RunUpdate) error {
	return workflow.ExecuteActivity(bookkeeping(ctx, "run record"), activities.RecordRunName, u).Get(ctx, nil)
}

// runOf begins the record of this run.
func runOf(ctx workflow.Context, spec Spec, cells []Cell) runRecord {
	return runRecord{id: runID(ctx), spec: spec, cells: cells}
}

type runRecord struct {
	id    activities.RunID
	spec  Spec
	cells []Cell
}

func runID(ctx workflow.Context) activities.RunID {
	info := workflow.GetInfo(ctx)
	return activities.RunID{WorkflowID: info.WorkflowExecution.ID, RunID: info.FirstRunID}
}

func (r runRecord) opened(now time.Time) activities.RunUpdate {
	names := make([]string, len(r.cells))
	for i, c := range r.cells {
		names[i] = c.Name
	}
	return activities.RunUpdate{ID: r.id, Name: r.spec.Name, Spec: mustJSON(r.spec), Cells: names, Status: artifact.Running, Started: now}
}

func (r runRecord) closed(now time.Time, result StudyResult, p *progress, err error) activities.RunUpdate {
	u := activities.RunUpdate{ID: r.id, Name: r.spec.Name, Finished: now, Uses: p.take(), Pointers: sortedKeys(p.unfinished), Failed: result.Failed, Status: artifact.Completed}
	switch {
	case temporal.IsCanceledError(err):
		u.Status, u.Error = artifact.Cancelled, &artifact.RunError{Type: "Cancelled", Message: "cancelled by a person or a program"}
	case err != nil:
		u.Status, u.Error = artifact.Failed, runError(err)
	default:
		u.Tables = &result.Tables
	}
	return u
}
