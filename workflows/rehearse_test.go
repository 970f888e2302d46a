package workflows

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
)

// A dry run of documents that took longer than the heartbeat timeout failed.
func TestASilentActivityOutlivesItsHeartbeatTimeout(t *testing.T) {
	const timeout = time.Second
	for name, beats := range map[string]bool{"with beats": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var suite testsuite.WorkflowTestSuite
			suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
			env := suite.NewTestWorkflowEnvironment()
			env.SetTestTimeout(time.Minute)
			env.RegisterActivityWithOptions(func(ctx context.Context) error {
				if beats {
					defer keepBeating(ctx, timeout/10)()
				}
				time.Sleep(3 * timeout)
				return nil
			}, activity.RegisterOptions{Name: "silent"})
			flow := func(ctx workflow.Context) error {
				ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Hour, HeartbeatTimeout: timeout})
				return workflow.ExecuteActivity(ctx, "silent").Get(ctx, nil)
			}
			env.RegisterWorkflow(flow)
			env.ExecuteWorkflow(flow)
			if err := env.GetWorkflowError(); (err == nil) != beats {
				t.Errorf("got %v", err)
			}
		})
	}
}
