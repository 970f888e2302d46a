package workflows

import (
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
)

// Register adds to a worker what its queue asks for.
func Register(w worker.Registry, queue string, a *activities.Activities) {
	switch queue {
	case QueueControl:
		w.RegisterWorkflowWithOptions(Study, workflow.RegisterOptions{Name: StudyName})
		w.RegisterWorkflowWithOptions(Stage, workflow.RegisterOptions{Name: StageName})
		w.RegisterActivityWithOptions(a.RecordRun, activity.RegisterOptions{Name: activities.RecordRunName})
		w.RegisterActivityWithOptions(a.AwaitStage, activity.RegisterOptions{Name: activities.AwaitName})
	case QueueCPU:
		w.RegisterActivityWithOptions(a.Resolve, activity.RegisterOptions{Name: activities.ResolveName})
	case QueueGPU:
		w.RegisterActivityWithOptions(a.DescribeDevice, activity.RegisterOptions{Name: activities.DescribeDeviceName})
	}
	if queue == QueueOf(activities.EndpointPredictionsName) {
		w.RegisterActivityWithOptions(a.Run, activity.RegisterOptions{Name: activities.EndpointPredictionsName})
	}
	for _, stage := range activities.Stages {
		switch {
		case QueueOf(stage) != queue:
		case activities.Divisible(stage):
			w.RegisterActivityWithOptions(a.RunDivisible, activity.RegisterOptions{Name: stage})
			w.RegisterActivityWithOptions(a.RunShard, activity.RegisterOptions{Name: activities.ShardName(stage)})
		default:
			w.RegisterActivityWithOptions(a.Run, activity.RegisterOptions{Name: stage})
		}
	}
}

// Names under which the workflows are registered.
const (
	StudyName = "Study"
	StageName = "Stage"
)
