package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
)

// Task queues, by what a worker needs to serve them.
const (
	QueueControl = "control" // workflows and short bookkeeping
	QueueCPU     = "cpu"     // documents, tokens, batches, scores, tables
	QueueLLM     = "llm"     // paid or rate-limited requests
	QueueGPU     = "gpu"     // training and predictions: one at a time per device
)

// Queues lists all task queues.
var Queues = []string{QueueControl, QueueCPU, QueueLLM, QueueGPU}

// QueueOf says which queue serves an activity: the one that makes a stage's result, or one of the bookkeeping ones.
func QueueOf(activity string) string {
	switch activity {
	case activities.RecordRunName, activities.AwaitName:
		return QueueControl
	case activities.DescribeDeviceName:
		return QueueGPU
	case "instructions", "judgments", activities.EndpointPredictionsName:
		return QueueLLM
	case "checkpoint", "predictions":
		return QueueGPU
	}
	return QueueCPU
}

// heartbeatTimeout bounds how long a killed worker goes unnoticed. Workers beat at
// least every quarter of it.
const heartbeatTimeout = 20 * time.Second

// retries tries for ever what may mend itself (a store that is away, a worker that was stopped) and never what cannot.
func retries(maximum time.Duration) *temporal.RetryPolicy {
	return &temporal.RetryPolicy{
		InitialInterval:        time.Second,
		BackoffCoefficient:     2,
		MaximumInterval:        maximum,
		NonRetryableErrorTypes: activities.NonRetryable,
	}
}

// bookkeeping is for short activities: resolving keys, writing run records. It runs where
// the stage's files and devices are not needed.
func bookkeeping(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           QueueControl,
		StartToCloseTimeout: 2 * time.Minute,
		RetryPolicy:         retries(10 * time.Second),
		Summary:             summary,
	})
}

// resolving is bookkeeping that may hash the files a stage reads, so it runs where those are, and takes as long as that takes.
func resolving(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           QueueCPU,
		StartToCloseTimeout: 24 * time.Hour,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy:         retries(10 * time.Second),
		Summary:             summary,
	})
}

// working is for the stages themselves: as long as they need, as long as they move.
func working(ctx workflow.Context, activity, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           QueueOf(activity),
		StartToCloseTimeout: 60 * 24 * time.Hour,
		HeartbeatTimeout:    heartbeatTimeout,
		WaitForCancellation: true, // a cancelled training saves first
		RetryPolicy:         retries(30 * time.Second),
		Summary:             summary,
	})
}

// awaiting is for watching a stage that another run makes.
func awaiting(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           QueueControl,
		StartToCloseTimeout: 60 * 24 * time.Hour,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy:         retries(10 * time.Second),
		Summary:             summary,
	})
}
