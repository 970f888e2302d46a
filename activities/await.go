package activities

import (
	"context"
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// AwaitInput names a result that another run is making.
type AwaitInput struct {
	Stage      string `json:"stage"`
	Key        string `json:"key"`
	WorkflowID string `json:"workflow_id"` // the maker's
}

// AwaitStage waits until the result is in the store, or until its maker has ended without it: then Hit is false.
func (a *Activities) AwaitStage(ctx context.Context, in AwaitInput) (Resolved, error) {
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		// Ask first whether the maker still runs: a maker that ends after that has stored its manifest.
		running, err := a.running(ctx, in.WorkflowID)
		if err != nil {
			return Resolved{}, boundary(ctx, "await "+in.Stage, err)
		}
		m, err := a.Store.FindManifest(ctx, in.Stage, in.Key)
		if err == nil {
			return Resolved{Key: in.Key, Hit: true, Ref: m.Ref()}, nil
		}
		if !errors.Is(err, artifact.ErrNotFound) {
			return Resolved{}, boundary(ctx, "await "+in.Stage, err)
		}
		if !running {
			return Resolved{Key: in.Key}, nil
		}
		activity.RecordHeartbeat(ctx, Progress{Stage: in.Stage, Note: "made by another run"})
		select {
		case <-ctx.Done():
			return Resolved{}, ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return Resolved{}, boundary(ctx, "await "+in.Stage, handover("the worker is stopping"))
		case <-ticker.C:
		}
	}
}

func (a *Activities) running(ctx context.Context, workflowID string) (bool, error) {
	d, err := a.Temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return d.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}
