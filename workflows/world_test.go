package workflows

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// world stands in for store and workers: its activities have the real ones' names and keep the real ones' promises
// (one key a meaning, a result is found once it is made).
type world struct {
	t  *testing.T
	mu sync.Mutex
	// store maps keys to results; made counts what was made, by stage.
	store map[string]artifact.Ref
	made  map[string]int
	// fail gives the error of a call, nil to make it. block makes it wait for its cancellation.
	fail  func(activities.Call) error
	block func(activities.Call) bool
	// hold delays a call for as long as it is true.
	hold func(activities.Call) bool
	// taken makes a stage's workflow be refused, as one whose ID another run uses. The test environment refuses such by
	// another error than the server's.
	taken func(activities.Call) bool
	// await answers AwaitStage.
	await   func(activities.AwaitInput) activities.Resolved
	awaited []activities.AwaitInput
	devices []string
	records []activities.RunUpdate
}

func newWorld(t *testing.T) *world {
	return &world{t: t, store: map[string]artifact.Ref{}, made: map[string]int{}}
}

func (w *world) keyOf(call activities.Call) string {
	call.Key, call.Label, call.Run = "", "", ""
	b, err := json.Marshal(call)
	if err != nil {
		w.t.Error(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (w *world) resolve(_ context.Context, call activities.Call) (activities.Resolved, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := w.keyOf(call)
	ref, hit := w.store[key]
	return activities.Resolved{Key: key, Hit: hit, Ref: ref}, nil
}

func (w *world) run(ctx context.Context, call activities.Call) (artifact.Ref, error) {
	if call.Run == "" {
		w.t.Errorf("stage %s of %s does not know which run pays", call.Stage, call.Label)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.block != nil && w.block(call) {
		w.mu.Unlock()
		// As real stages do: the cancellation comes with a heartbeat's answer.
		for ctx.Err() == nil {
			activity.RecordHeartbeat(ctx)
			time.Sleep(time.Millisecond)
		}
		w.mu.Lock()
		return artifact.Ref{}, ctx.Err()
	}
	for w.hold != nil && w.hold(call) {
		w.mu.Unlock()
		time.Sleep(time.Millisecond)
		w.mu.Lock()
	}
	if w.fail != nil {
		if err := w.fail(call); err != nil {
			return artifact.Ref{}, err
		}
	}
	if name := activity.GetInfo(ctx).ActivityType.Name; name != activities.ActivityName(call) {
		w.t.Errorf("activity %s was called for stage %s", name, call.Stage)
	}
	if got := w.keyOf(call); call.Key != got {
		w.t.Errorf("stage %s was called with key %s, resolved was %s", call.Stage, call.Key, got)
	}
	ref := artifact.Ref{Stage: call.Stage, Key: call.Key, Generation: 1}
	w.store[call.Key] = ref
	w.made[call.Stage]++
	return ref, nil
}

func (w *world) awaitStage(_ context.Context, in activities.AwaitInput) (activities.Resolved, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awaited = append(w.awaited, in)
	return w.await(in), nil
}

func (w *world) describe(_ context.Context, name string) (activities.Device, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices = append(w.devices, name)
	if name == "abacus" {
		return activities.Device{}, temporal.NewNonRetryableApplicationError(`device "abacus" is not known`, activities.BadConfig, nil)
	}
	return activities.Device{Name: name, Class: "class-of-" + name}, nil
}

func (w *world) record(_ context.Context, u activities.RunUpdate) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, u)
	return nil
}

// last is the run record as the updates leave it: what matters of it here.
func (w *world) last() activities.RunUpdate {
	if len(w.records) == 0 {
		w.t.Fatal("there is no run record")
	}
	u := w.records[len(w.records)-1]
	u.Uses = nil
	for _, r := range w.records {
		u.Uses = append(u.Uses, r.Uses...)
	}
	return u
}

// env returns a test environment with the workflows and this world's activities.
func (w *world) env() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	// On a busy machine a workflow may wait long for a processor; that is no deadlock.
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	env.SetStartWorkflowOptions(startOptions)
	env.RegisterWorkflowWithOptions(Study, workflow.RegisterOptions{Name: StudyName})
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context, call activities.Call) (artifact.Ref, error) {
		if w.taken != nil && w.taken(call) {
			return artifact.Ref{}, &temporal.ChildWorkflowExecutionAlreadyStartedError{}
		}
		return Stage(ctx, call)
	}, workflow.RegisterOptions{Name: StageName})
	for name, f := range map[string]any{
		activities.ResolveName: w.resolve, activities.AwaitName: w.awaitStage, activities.DescribeDeviceName: w.describe, activities.RecordRunName: w.record,
	} {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	for _, stage := range append([]string{activities.EndpointPredictionsName}, activities.Stages...) {
		env.RegisterActivityWithOptions(w.run, activity.RegisterOptions{Name: stage})
	}
	return env
}

// details are the current details that the Temporal UI shows.
func details(t *testing.T, env *testsuite.TestWorkflowEnvironment) string {
	t.Helper()
	v, err := env.QueryWorkflow("__temporal_workflow_metadata")
	if err != nil {
		t.Fatal(err)
	}
	var m sdkpb.WorkflowMetadata
	if err := v.Get(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCurrentDetails()
}

// isMethod tells whether a call is of a cell of that method.
func isMethod(call activities.Call, method string) bool {
	return strings.HasPrefix(call.Label, method+"/")
}

// quiet drops the environment's log.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
