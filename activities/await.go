package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
		maker, err := a.maker(ctx, in.WorkflowID)
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
		if !maker.running {
			return Resolved{Key: in.Key}, nil
		}
		activity.RecordHeartbeat(ctx, Progress{Stage: in.Stage, Note: maker.note()})
		select {
		case <-ctx.Done():
			return Resolved{}, ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return Resolved{}, boundary(ctx, "await "+in.Stage, handover("the worker is stopping"))
		case <-ticker.C:
		}
	}
}

// maker is the stage workflow that makes what this run waits for.
type maker struct {
	running bool
	run     string // the ID of the run that started it
	attempt int32
	failure string // of its last attempt
}

// note says who makes it, and what to do when that does not succeed: its maker may still use an address or a key that was mended since,
// for neither is part of what the result means.
func (m maker) note() string {
	run := m.run
	if run == "" {
		return "made by another run"
	}
	if m.failure == "" {
		return fmt.Sprintf("run %s makes it", run)
	}
	return fmt.Sprintf("run %s makes it and has failed %s so far: %s; starter cancel %s lets this run make it", run, times(m.attempt-1), m.failure, run)
}

func times(n int32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (a *Activities) maker(ctx context.Context, workflowID string) (maker, error) {
	d, err := a.Temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return maker{}, nil
	}
	if err != nil {
		return maker{}, err
	}
	info := d.GetWorkflowExecutionInfo()
	m := maker{running: info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, run: info.GetParentExecution().GetWorkflowId()}
	for _, p := range d.GetPendingActivities() {
		failure := p.GetLastFailure()
		if p.GetAttempt() < 2 || failure.GetApplicationFailureInfo().GetType() == Handover {
			continue
		}
		text, _, _ := strings.Cut(failure.GetMessage(), "\n")
		m.attempt, m.failure = p.GetAttempt(), text[:min(len(text), 300)]
	}
	return m, nil
}
