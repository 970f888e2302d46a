package workflows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// Calls returns the calls that a study's specification leads to, by action key, as far as the store has what they are made from or
// making it costs nothing. It changes nothing.
func Calls(ctx context.Context, spec Spec, a *activities.Activities) (calls map[string]activities.Call, err error) {
	r, done, err := a.Rehearse(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := Rehearse(ctx, spec, r); err != nil {
		return nil, err
	}
	return r.Calls(), nil
}

const rehearsalTimeout = 24 * time.Hour

// Rehearse runs a study in this process, without a server: the very workflow, so that what is foretold is what would be
// asked for, with activities that look into the store and change nothing. What would be made, and what would fail, is in r afterwards.
func Rehearse(ctx context.Context, spec Spec, r *activities.Rehearsal) (err error) {
	defer func() {
		// The test environment tells of a workflow that cannot go on by panicking.
		if p := recover(); p != nil {
			err = fmt.Errorf("rehearsal: %v", p)
		}
	}()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(rehearsalTimeout) // making what costs nothing takes as long as it takes
	// On a busy machine a workflow may wait long for a processor; that is no deadlock.
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute, Interceptors: []interceptor.WorkerInterceptor{&patient{}}})
	env.RegisterWorkflow(Study)
	env.RegisterWorkflow(Stage)
	once := func(err error) error {
		// A second try in the same minute of the same process would find the same.
		var app *temporal.ApplicationError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &app):
			return temporal.NewNonRetryableApplicationError(app.Message(), app.Type(), err)
		}
		return temporal.NewNonRetryableApplicationError(err.Error(), "", err)
	}
	register := func(name string, f any) {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	register(activities.ResolveName, func(_ context.Context, call activities.Call) (activities.Resolved, error) {
		found, err := r.Resolve(ctx, call)
		return found, once(err)
	})
	register(activities.DescribeDeviceName, func(_ context.Context, name string) (activities.Device, error) {
		return r.Describe(ctx, name), nil
	})
	register(activities.RecordRunName, func(context.Context, activities.RunUpdate) error { return nil })
	register(activities.AwaitName, func(context.Context, activities.AwaitInput) (activities.Resolved, error) {
		return activities.Resolved{}, once(errors.New("nothing else runs in a rehearsal"))
	})
	for _, stage := range append([]string{activities.EndpointPredictionsName}, activities.Stages...) {
		register(stage, func(_ context.Context, call activities.Call) (artifact.Ref, error) {
			ref, err := r.Make(ctx, call)
			return ref, once(err)
		})
	}
	env.ExecuteWorkflow(Study, StudyInput{Spec: spec})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := env.GetWorkflowError(); err != nil {
		return fmt.Errorf("rehearsal: %s", cause(err))
	}
	return nil
}

// patient has activities take as long as they take: a rehearsal's are in this process, which no heartbeat need tell that they live.
type patient struct {
	interceptor.WorkerInterceptorBase
}

// InterceptWorkflow wraps a workflow.
func (p *patient) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &patientInbound{interceptor.WorkflowInboundInterceptorBase{Next: next}}
}

type patientInbound struct {
	interceptor.WorkflowInboundInterceptorBase
}

// Init wraps what the workflow asks for.
func (p *patientInbound) Init(out interceptor.WorkflowOutboundInterceptor) error {
	return p.Next.Init(&patientOutbound{interceptor.WorkflowOutboundInterceptorBase{Next: out}})
}

type patientOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
}

// ExecuteActivity starts an activity without bounds of time.
func (p *patientOutbound) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	ctx = workflow.WithHeartbeatTimeout(workflow.WithStartToCloseTimeout(ctx, rehearsalTimeout), 0)
	return p.Next.ExecuteActivity(ctx, name, args...)
}
