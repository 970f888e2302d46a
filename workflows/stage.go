package workflows

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// stages makes stage results for one run. Cells of a study that ask for the same result share one future.
type stages struct {
	name     string // the run's name, for search attributes
	model    string
	classes  map[string]workflow.Future // device classes by the device's name, each asked for once
	shared   map[string]workflow.Future
	progress *progress
}

func newStages(ctx workflow.Context, spec Spec) *stages {
	return &stages{name: spec.Name, model: spec.modelName(), classes: map[string]workflow.Future{}, shared: map[string]workflow.Future{}, progress: newProgress(ctx)}
}

// do returns the result of a stage for a cell: from the store, from another cell or run that
// is making it, or made now.
//
// role says what the result is to the cell, where a cell asks a stage more than once.
func (s *stages) do(ctx workflow.Context, cell Cell, stage, role string, params any, inputs inputs) (artifact.Ref, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return artifact.Ref{}, err
	}
	call := activities.Call{Stage: stage, Params: raw, Inputs: inputs, Label: label(cell, stage, role)}
	if QueueOf(activities.ActivityName(call)) == QueueGPU {
		if call.Class, err = s.deviceClass(ctx, deviceOf(params)); err != nil {
			return artifact.Ref{}, err
		}
	}
	identity, err := json.Marshal(activities.Call{Stage: stage, Params: raw, Inputs: inputs, Class: call.Class})
	if err != nil {
		return artifact.Ref{}, err
	}
	var made stageResult
	if f, ok := s.shared[string(identity)]; ok {
		err := f.Get(ctx, &made)
		if err == nil {
			s.progress.use(cell, role, made)
		}
		return made.Ref, err
	}
	future, settle := workflow.NewFuture(ctx)
	s.shared[string(identity)] = future
	made, err = s.find(ctx, cell, call)
	settle.Set(made, err)
	if err == nil {
		s.progress.use(cell, role, made)
	}
	return made.Ref, err
}

// label says to people what asked for a result: the cell, and of its benchmarks which, since those are under way together.
func label(cell Cell, stage, role string) string {
	switch stage {
	case "questions", "predictions", "judgments", "scores":
		if role != "" {
			return cell.Name + " · " + role
		}
	}
	return cell.Name
}

// stageResult is a stage's result and how this run came by it.
type stageResult struct {
	Ref    artifact.Ref
	Reused bool // it was in the store, or another run made it
}

func (s *stages) find(ctx workflow.Context, cell Cell, call activities.Call) (stageResult, error) {
	s.progress.begin(ctx, call)
	defer s.progress.end(ctx, call)
	for {
		var r activities.Resolved
		if err := workflow.ExecuteActivity(resolving(ctx, call.Stage+" · "+call.Label), activities.ResolveName, call).Get(ctx, &r); err != nil {
			return stageResult{}, failure(err)
		}
		if r.Hit {
			return stageResult{Ref: r.Ref, Reused: true}, nil
		}
		call.Key = r.Key
		pointer := activities.PointerOf(call)
		if pointer != "" {
			s.progress.unfinished[pointer] = true
		}
		ref, err := s.make(ctx, cell, call)
		if err == nil {
			delete(s.progress.unfinished, pointer)
		}
		var taken *temporal.ChildWorkflowExecutionAlreadyStartedError
		if !errors.As(err, &taken) {
			return stageResult{Ref: ref}, err
		}
		// Another run makes this very result: wait for its manifest, and if that run
		// ends without one, try to be its maker.
		s.progress.wait(ctx, call)
		owner := activities.AwaitInput{Stage: call.Stage, Key: call.Key, WorkflowID: stageWorkflowID(call)}
		if err := workflow.ExecuteActivity(awaiting(ctx, "wait for "+owner.WorkflowID), activities.AwaitName, owner).Get(ctx, &r); err != nil {
			return stageResult{}, failure(err)
		}
		if r.Hit {
			return stageResult{Ref: r.Ref, Reused: true}, nil
		}
	}
}

// make runs the stage as a child workflow whose ID is the action key, so that one run in the cluster makes it.
func (s *stages) make(ctx workflow.Context, cell Cell, call activities.Call) (artifact.Ref, error) {
	child := workflow.ChildWorkflowOptions{
		WorkflowID:            stageWorkflowID(call),
		TaskQueue:             QueueControl,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		WaitForCancellation:   true,
		StaticSummary:         call.Stage + " · " + call.Label,
		StaticDetails:         stageDetails(call, workflow.GetInfo(ctx).Namespace),
		TypedSearchAttributes: searchAttributes(s.name, call.Stage, cell.Method, s.model),
	}
	call.Run = runID(ctx).WorkflowID
	s.progress.making(ctx, call)
	var ref artifact.Ref
	err := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, child), Stage, call).Get(ctx, &ref)
	return ref, failure(err)
}

// failure returns what failed inside a child or an activity, so that its type and message are the
// parent's own failure instead of "child workflow execution error".
func failure(err error) error {
	var app *temporal.ApplicationError
	var taken *temporal.ChildWorkflowExecutionAlreadyStartedError
	if errors.As(err, &taken) || !errors.As(err, &app) {
		return err
	}
	return app
}

// stageWorkflowID is the same for the same result in all runs. Sixteen digits of the key tell results apart and can be read in a list; what
// decides is always the whole key.
func stageWorkflowID(call activities.Call) string {
	return makerID(call.Stage, call.Key)
}

// makerID is the ID of the workflow that makes, or made, a stage's result.
func makerID(stage, key string) string { return "stage-" + stage + "-" + key[:min(16, len(key))] }

// stageDetails says for the Temporal UI of a namespace what a stage makes, and of what.
func stageDetails(call activities.Call, namespace string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Action key `%s`. The result will be `actions/%s/%s/1.json` in the artifact store.\n\nInputs:\n", call.Key, call.Stage, call.Key)
	for _, role := range sortedKeys(call.Inputs) {
		fmt.Fprintf(&b, "- %s: %s\n", role, resultLink(call.Inputs[role], namespace))
	}
	if len(call.Inputs) == 0 {
		b.WriteString("- none but the files of its source\n")
	} else {
		b.WriteString("\nAn input's name leads to the workflow that made it, while Temporal keeps that; `starter lineage` follows the name in the store.\n")
	}
	return b.String()
}

// Stage makes one result. While it runs, the activity signals how far it is, and
// the current details show it. Work that its activity finds too large is done in shards: a window of them, then the workflow
// continues as new with the next, so that histories stay short.
func Stage(ctx workflow.Context, call activities.Call) (artifact.Ref, error) {
	workflow.SetCurrentDetails(ctx, "Waiting for a worker on queue **"+QueueOf(activities.ActivityName(call))+"**.")
	view := &shardView{done: map[int]bool{}, live: map[int]activities.Progress{}}
	if call.Shards != nil {
		view.of = *call.Shards
	}
	// A query handler that cannot be set only takes the live view away.
	_ = workflow.SetQueryHandler(ctx, ShardProgressQuery, func(doneOnly bool) (activities.Progress, error) { return view.progress(doneOnly), nil })
	signals := workflow.GetSignalChannel(ctx, activities.ProgressSignal)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var p activities.Progress
			signals.Receive(ctx, &p)
			if p.Shard > 0 {
				view.tell(p)
				p = view.progress(false)
			}
			workflow.SetCurrentDetails(ctx, p.Markdown())
		}
	})
	started := workflow.Now(ctx)
	ref, err := makeStage(ctx, &call, view)
	if workflow.IsContinueAsNewError(err) {
		return ref, err
	}
	if err != nil {
		workflow.SetCurrentDetails(ctx, failureDetails(err))
		return ref, err
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Done in %s: `%s`.", workflow.Now(ctx).Sub(started).Round(time.Second), ref))
	return ref, nil
}

// makeStage has the result made: by one activity, or by shards which another one joins.
func makeStage(ctx workflow.Context, call *activities.Call, view *shardView) (artifact.Ref, error) {
	var made activities.Outcome
	run := func() error {
		name := activities.ActivityName(*call)
		return workflow.ExecuteActivity(working(ctx, name, call.Label), name, *call).Get(ctx, &made)
	}
	if call.Shards == nil {
		if err := run(); err != nil || made.Shards == nil {
			return made.Ref, err
		}
		call.Shards = made.Shards
	}
	if err := shardWindow(ctx, call, view); err != nil {
		return artifact.Ref{}, err
	}
	if call.Shards.Next < call.Shards.Count {
		return artifact.Ref{}, workflow.NewContinueAsNewError(ctx, StageName, *call)
	}
	err := run()
	return made.Ref, err
}

// failureDetails tells a person in the UI what happened and what to do.
func failureDetails(err error) string {
	var app *temporal.ApplicationError
	switch {
	case temporal.IsCanceledError(err):
		return "Cancelled. What was saved is kept; the same run started again goes on from there."
	case errors.As(err, &app):
		return fmt.Sprintf("**%s**: %s\n\nMend the cause, then `starter resume` with the run's ID: finished stages are reused.", app.Type(), app.Message())
	}
	return "Failed: " + err.Error()
}

// deviceOf is the device that a stage on the gpu queue opens.
func deviceOf(params any) string {
	switch p := params.(type) {
	case datasets.CheckpointParams:
		if p.Train != nil {
			return p.Train.Device
		}
	case datasets.PredictionsStageParams:
		return p.Device
	}
	return "auto"
}

// deviceClass asks a gpu worker once which class a device has: results differ by it, so keys contain it.
func (s *stages) deviceClass(ctx workflow.Context, device string) (string, error) {
	known, ok := s.classes[device]
	if !ok {
		var settle workflow.Settable
		known, settle = workflow.NewFuture(ctx)
		s.classes[device] = known
		s.progress.say(ctx, "Asking a worker on queue **gpu** for its device.")
		var d activities.Device
		ctx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			TaskQueue:           QueueGPU,
			StartToCloseTimeout: 5 * time.Minute,
			RetryPolicy:         retries(10 * time.Second),
			Summary:             "which device trains",
		})
		err := workflow.ExecuteActivity(ctx, activities.DescribeDeviceName, device).Get(ctx, &d)
		settle.Set(d.Class, err)
	}
	var class string
	err := known.Get(ctx, &class)
	return class, err
}

// cause is an error's own message, without Temporal's account of where it passed.
func cause(err error) string { return runError(err).Message }

// runError describes a failure for the run record.
func runError(err error) *artifact.RunError {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return &artifact.RunError{Type: app.Type(), Message: app.Message()}
	}
	return &artifact.RunError{Message: err.Error()}
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil { // only for types that no Spec holds
		panic(err)
	}
	return b
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// Search attributes of runs and stages.
var (
	attributeExperiment = temporal.NewSearchAttributeKeyKeyword("experiment")
	attributeStage      = temporal.NewSearchAttributeKeyKeyword("stage")
	attributeMethod     = temporal.NewSearchAttributeKeyKeyword("method")
	attributeModel      = temporal.NewSearchAttributeKeyKeyword("model")
)

// SearchAttributes names the search attributes that runs set; all are keywords.
var SearchAttributes = []string{"experiment", "stage", "method", "model"}

func searchAttributes(experiment, stage, method, model string) temporal.SearchAttributes {
	updates := []temporal.SearchAttributeUpdate{attributeExperiment.ValueSet(experiment), attributeModel.ValueSet(model)}
	if stage != "" {
		updates = append(updates, attributeStage.ValueSet(stage))
	}
	if method != "" {
		updates = append(updates, attributeMethod.ValueSet(method))
	}
	return temporal.NewSearchAttributes(updates...)
}
