package workflows

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// A dry run of documents that took longer than the heartbeat timeout failed: its activities tell nobody that they are alive, and the SDK
// throttles beats of what a child workflow started beyond any timeout. Stages are started by child workflows.
func TestASilentActivityOfARehearsalOutlivesItsTimeouts(t *testing.T) {
	const timeout = time.Second
	for name, interceptors := range map[string][]interceptor.WorkerInterceptor{"in a rehearsal": {&patient{}}, "elsewhere": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var suite testsuite.WorkflowTestSuite
			suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
			env := suite.NewTestWorkflowEnvironment()
			env.SetTestTimeout(time.Minute)
			env.SetWorkerOptions(worker.Options{Interceptors: interceptors})
			env.RegisterActivityWithOptions(func(context.Context) error {
				time.Sleep(3 * timeout)
				return nil
			}, activity.RegisterOptions{Name: "silent"})
			env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
				ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 2 * timeout, HeartbeatTimeout: timeout})
				return workflow.ExecuteActivity(ctx, "silent").Get(ctx, nil)
			}, workflow.RegisterOptions{Name: "stage"})
			env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
				return workflow.ExecuteChildWorkflow(ctx, "stage").Get(ctx, nil)
			}, workflow.RegisterOptions{Name: "study"})
			env.ExecuteWorkflow("study")
			if err := env.GetWorkflowError(); (err == nil) != (interceptors != nil) {
				t.Errorf("got %v", err)
			}
		})
	}
}
