package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

var startOptions = client.StartWorkflowOptions{ID: "tiny-run", TaskQueue: QueueControl}

func TestCellsShareStagesAndEachIsMadeOnce(t *testing.T) {
	w := newWorld(t)
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec, "study.seeds=[1, 2]")})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	// Four cells; the imported base model is a checkpoint, too.
	want := map[string]int{"documents": 1, "tokenizer": 1, "instructions": 1, "tokens": 1, "batches": 4, "checkpoint": 5, "predictions": 4, "scores": 4, "tables": 1}
	if diff := cmp.Diff(want, w.made); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"auto"}, w.devices); diff != "" {
		t.Errorf("the device's class was asked for:\n%s", diff)
	}
	var result StudyResult
	if err := env.GetWorkflowResult(&result); err != nil {
		t.Fatal(err)
	}
	record := w.last()
	if record.Status != artifact.Completed || record.Error != nil || record.Tables == nil || *record.Tables != result.Tables || record.Finished.IsZero() {
		t.Errorf("the record says %+v", record)
	}
	used := map[artifact.Ref]bool{}
	for _, u := range record.Uses {
		used[u.Ref] = true
		if u.Reused {
			t.Errorf("%s counts as reused", u.Ref)
		}
	}
	for _, ref := range w.store {
		if !used[ref] {
			t.Errorf("the record does not list %s", ref)
		}
	}
	for _, want := range []string{"**tiny**: 4 of 4 cells finished", "| checkpoint | 5 | 0 |", "Tables: [tables/", "starter report"} {
		if got := details(t, env); !strings.Contains(got, want) {
			t.Errorf("current details lack %q:\n%s", want, got)
		}
	}
}

func TestTheRecordOpensWithTheWholeRun(t *testing.T) {
	w := newWorld(t)
	spec := mustParse(t, tinySpec)
	w.env().ExecuteWorkflow(Study, StudyInput{Spec: spec})
	opened := w.records[0]
	if opened.Status != artifact.Running || opened.ID.WorkflowID != "tiny-run" || opened.Started.IsZero() {
		t.Errorf("the first record says %s of %+v, started %v", opened.Status, opened.ID, opened.Started)
	}
	if diff := cmp.Diff([]string{"packing/seed=1", "naive/seed=1"}, opened.Cells); diff != "" {
		t.Error(diff)
	}
	back, err := RecordedSpec(opened.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, back); diff != "" {
		t.Errorf("a run cannot be resumed from its record:\n%s", diff)
	}
}

func TestTheSecondRunReusesEverything(t *testing.T) {
	w := newWorld(t)
	in := StudyInput{Spec: mustParse(t, tinySpec)}
	w.env().ExecuteWorkflow(Study, in)
	made := len(w.store)
	w.made, w.records = map[string]int{}, nil
	env := w.env()
	env.ExecuteWorkflow(Study, in)
	if err := env.GetWorkflowError(); err != nil || len(w.made) > 0 {
		t.Fatalf("made %v again, %v", w.made, err)
	}
	refs := map[artifact.Ref]bool{}
	for _, u := range w.last().Uses {
		refs[u.Ref] = true
		if !u.Reused {
			t.Errorf("%s of %s counts as made", u.Ref, u.Cell)
		}
	}
	if len(refs) != made {
		t.Errorf("the record lists %d results, the first run made %d", len(refs), made)
	}
	if got := details(t, env); !strings.Contains(got, "| checkpoint | 0 | 3 |") {
		t.Errorf("current details:\n%s", got)
	}
}

func TestAFailedCellLeavesTheOthers(t *testing.T) {
	w := newWorld(t)
	w.fail = func(call activities.Call) error {
		if call.Stage == "checkpoint" && isMethod(call, "naive") && call.Inputs["batches"].Key != "" {
			return temporal.NewNonRetryableApplicationError("checkpoint: step 3: the loss is NaN", activities.Diverged, nil)
		}
		return nil
	}
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec)})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	var result StudyResult
	if err := env.GetWorkflowResult(&result); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"naive/seed=1": "checkpoint: step 3: the loss is NaN"}
	if diff := cmp.Diff(want, result.Failed); diff != "" {
		t.Error(diff)
	}
	record := w.last()
	if diff := cmp.Diff(want, record.Failed); diff != "" {
		t.Errorf("in the record: %s", diff)
	}
	if record.Status != artifact.Completed || record.Tables == nil {
		t.Errorf("the record says %+v", record)
	}
	if got := details(t, env); !strings.Contains(got, "failed: naive/seed=1") {
		t.Errorf("current details:\n%s", got)
	}
}

func TestWhenAllCellsFailTheErrorKeepsItsType(t *testing.T) {
	for _, kind := range activities.NonRetryable {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.fail = func(call activities.Call) error {
				if call.Stage == "tokens" {
					return temporal.NewNonRetryableApplicationError("tokens: what is wrong", kind, nil)
				}
				return nil
			}
			env := w.env()
			env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec)})
			var app *temporal.ApplicationError
			if err := env.GetWorkflowError(); !errors.As(err, &app) || app.Type() != kind || app.Message() != "tokens: what is wrong" {
				t.Fatalf("the run failed by %v", err)
			}
			record := w.last()
			if diff := cmp.Diff(&artifact.RunError{Type: kind, Message: "tokens: what is wrong"}, record.Error); record.Status != artifact.Failed || diff != "" {
				t.Errorf("the record says %s: %s", record.Status, diff)
			}
			if len(record.Failed) != 2 || len(record.Uses) == 0 {
				t.Errorf("the record names %d failed cells and %d results", len(record.Failed), len(record.Uses))
			}
			if got := details(t, env); !strings.Contains(got, "**"+kind+"**: tokens: what is wrong") || !strings.Contains(got, "starter resume") {
				t.Errorf("current details:\n%s", got)
			}
			if w.made["instructions"] != 1 || w.made["checkpoint"] > 0 {
				t.Errorf("made %v", w.made)
			}
		})
	}
}

func TestAnUnknownDeviceFailsTheRun(t *testing.T) {
	w := newWorld(t)
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec, "train.device=abacus")})
	var app *temporal.ApplicationError
	if err := env.GetWorkflowError(); !errors.As(err, &app) || app.Type() != activities.BadConfig || !strings.Contains(app.Message(), "abacus") {
		t.Errorf("the run failed by %v", err)
	}
}

func TestResultsAreKeyedByTheDeviceTheyAreMadeOn(t *testing.T) {
	w := newWorld(t)
	classes := map[string]string{}
	w.fail = func(call activities.Call) error {
		if QueueOf(call.Stage) == QueueGPU {
			classes[call.Label+" "+call.Stage] = call.Class
		} else if call.Class != "" {
			return fmt.Errorf("%s has a device class", call.Stage)
		}
		return nil
	}
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec, "train.device=cuda", "predictions.device=host", "study.methods.1.set={train.device: host}")})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"packing/seed=1 checkpoint": "class-of-cuda", "packing/seed=1 predictions": "class-of-host",
		"naive/seed=1 checkpoint": "class-of-host", "naive/seed=1 predictions": "class-of-host",
	}
	if diff := cmp.Diff(want, classes); diff != "" {
		t.Error(diff)
	}
}

func TestACancelledRunWritesItsRecord(t *testing.T) {
	w := newWorld(t)
	env := w.env()
	training := 0
	w.block = func(call activities.Call) bool {
		if call.Stage != "checkpoint" || call.Inputs["batches"].Key == "" {
			return false
		}
		if training++; training == 2 { // both cells
			env.CancelWorkflow()
		}
		return true
	}
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec)})
	if err := env.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Fatalf("the run ended by %v", err)
	}
	record := w.last()
	if record.Status != artifact.Cancelled || record.Error == nil || record.Finished.IsZero() || record.Tables != nil {
		t.Errorf("the record says %+v", record)
	}
	if len(record.Failed) > 0 {
		t.Errorf("cancelled cells count as failed: %v", record.Failed)
	}
	stages := map[string]bool{}
	for _, u := range record.Uses {
		stages[u.Ref.Stage] = true
	}
	if !stages["batches"] || stages["scores"] {
		t.Errorf("the record lists results of %v", stages)
	}
	if got := details(t, env); !strings.Contains(got, "Cancelled") {
		t.Errorf("current details:\n%s", got)
	}
}

// tuned tells whether a call trains on the batches of a cell of that method.
func tuned(call activities.Call, method string) bool {
	return call.Stage == "checkpoint" && call.Inputs["batches"].Key != "" && isMethod(call, method)
}

func TestAResultThatAnotherRunMakesIsAwaited(t *testing.T) {
	w := newWorld(t)
	w.taken = func(call activities.Call) bool { return tuned(call, "naive") }
	w.await = func(in activities.AwaitInput) activities.Resolved {
		return activities.Resolved{Key: in.Key, Hit: true, Ref: artifact.Ref{Stage: in.Stage, Key: in.Key, Generation: 1}}
	}
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec)})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if len(w.awaited) != 1 || w.awaited[0].Stage != "checkpoint" || !strings.HasPrefix(w.awaited[0].WorkflowID, "stage-checkpoint-"+w.awaited[0].Key[:12]) {
		t.Errorf("awaited %+v", w.awaited)
	}
	if w.made["checkpoint"] != 2 { // the base, and the other cell's
		t.Errorf("made %v", w.made)
	}
	for _, u := range w.last().Uses {
		if reused := u.Cell == "naive/seed=1" && u.Ref.Stage == "checkpoint" && u.Role == "tuned"; u.Reused != reused {
			t.Errorf("%s of %s: reused is %v", u.Ref, u.Cell, u.Reused)
		}
	}
}

func TestAResultWhoseMakerEndedWithoutItIsMade(t *testing.T) {
	w := newWorld(t)
	refused := 0
	w.taken = func(call activities.Call) bool {
		if tuned(call, "naive") {
			refused++
		}
		return tuned(call, "naive") && refused <= 2
	}
	w.await = func(in activities.AwaitInput) activities.Resolved { return activities.Resolved{Key: in.Key} }
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec)})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if len(w.awaited) != 2 || w.made["checkpoint"] != 3 {
		t.Errorf("awaited %d times, made %v", len(w.awaited), w.made)
	}
}

func TestALongStudyContinuesAsNew(t *testing.T) {
	w := newWorld(t)
	w.fail = func(call activities.Call) error {
		if call.Label == "naive/seed=1" && call.Stage == "scores" {
			return temporal.NewNonRetryableApplicationError("no", activities.BadData, nil)
		}
		return nil
	}
	seeds := make([]string, 40)
	for i := range seeds {
		seeds[i] = fmt.Sprint(i + 1)
	}
	in := StudyInput{Spec: mustParse(t, tinySpec, "study.seeds=["+strings.Join(seeds, ",")+"]")}
	cells, err := in.Spec.Cells()
	if err != nil {
		t.Fatal(err)
	}
	for runs := 1; ; runs++ {
		env := w.env()
		env.SetContinueAsNewSuggested(true)
		env.ExecuteWorkflow(Study, in)
		err := env.GetWorkflowError()
		if err == nil {
			if runs != 2 {
				t.Errorf("%d cells took %d runs", len(cells), runs)
			}
			break
		}
		var next *workflow.ContinueAsNewError
		if !errors.As(err, &next) || runs > 5 {
			t.Fatal(err)
		}
		in = StudyInput{}
		if err := converter.GetDefaultDataConverter().FromPayloads(next.Input, &in); err != nil {
			t.Fatal(err)
		}
		if in.Next != window || len(in.Failed) != 1 {
			t.Errorf("it continues at cell %d with %d failed", in.Next, len(in.Failed))
		}
	}
	if w.made["scores"] != len(cells)-1 || w.made["tables"] != 1 {
		t.Errorf("made %v", w.made)
	}
	record := w.last()
	if record.Status != artifact.Completed || len(record.Failed) != 1 {
		t.Errorf("the record says %s, %d failed", record.Status, len(record.Failed))
	}
	opened := 0
	for _, r := range w.records {
		if r.Status == artifact.Running {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("the record was opened %d times", opened)
	}
}

func TestProgressIsAnsweredWhileStagesRun(t *testing.T) {
	w := newWorld(t)
	env := w.env()
	var at RunProgress
	var shown string
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, _ converter.EncodedValues) {
		if !strings.HasPrefix(info.WorkflowExecution.ID, "stage-predictions-") || at.Cells > 0 {
			return
		}
		v, err := env.QueryWorkflow(ProgressQuery)
		if err != nil {
			t.Error(err)
			return
		}
		if err := v.Get(&at); err != nil {
			t.Error(err)
		}
		shown = details(t, env)
	})
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, tinySpec)})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	named := slices.ContainsFunc(at.Running, func(r RunningCall) bool { return strings.HasPrefix(r.WorkflowID, "stage-predictions-") })
	if at.Experiment != "tiny" || at.Cells != 2 || at.CellsDone != 0 || !named {
		t.Errorf("progress %+v", at)
	}
	if !strings.Contains(shown, "| documents | 1 | 0 |") || !strings.Contains(shown, "seed=1 |") {
		t.Errorf("current details:\n%s", shown)
	}
}

func TestAStageSaysWhatItWaitsForAndHowItFailed(t *testing.T) {
	w := newWorld(t)
	w.fail = func(activities.Call) error {
		return temporal.NewNonRetryableApplicationError("tokens: too long", activities.BadData, nil)
	}
	env := w.env()
	var asked atomic.Bool
	call := activities.Call{Stage: "tokens", Params: []byte(`{}`), Label: "a/seed=1", Run: "a-1"}
	call.Key = w.keyOf(call)
	w.hold = func(activities.Call) bool { return !asked.Load() }
	env.RegisterDelayedCallback(func() {
		asked.Store(true)
		if got := details(t, env); !strings.Contains(got, "queue **cpu**") {
			t.Errorf("current details of a waiting stage: %s", got)
		}
	}, time.Millisecond)
	env.ExecuteWorkflow(Stage, call)
	if got := details(t, env); !strings.Contains(got, "**BadData**: tokens: too long") {
		t.Errorf("current details of a failed stage: %s", got)
	}
}
