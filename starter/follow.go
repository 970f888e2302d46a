package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/workflows"
)

// follower shows a run until it ends: bars on a terminal, plain lines elsewhere.
type follower struct {
	temporal   client.Client
	connection activities.Connection
	id, runID  string
	// flag is what commands about the run need beside its ID: the data directory, where it is not the default.
	flag string
	out  io.Writer
}

// view is what is known of a run at one moment.
type view struct {
	progress workflows.RunProgress
	live     map[string]liveStage // by stage workflow ID
	waits    []string             // what the run waits for, when it does
}

// liveStage is a stage in the making, from its activity's heartbeats.
type liveStage struct {
	activities.Progress
	started bool // not only waiting for a worker
	attempt int32
	failure string
}

// follow returns the run's result.
func (f *follower) follow(ctx context.Context) (workflows.StudyResult, error) {
	type outcome struct {
		result workflows.StudyResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = f.temporal.GetWorkflow(ctx, f.id, f.runID).Get(ctx, &o.result)
		done <- o
	}()
	show := f.display()
	defer show.close()
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case o := <-done:
			if v, err := f.look(context.WithoutCancel(ctx)); err == nil {
				show.update(v)
			}
			return o.result, f.failure(ctx, o.err)
		case <-every.C:
			v, err := f.look(ctx)
			if ctx.Err() != nil {
				continue // what ended is told when the run's outcome comes
			}
			if err != nil {
				v = view{waits: []string{err.Error()}}
			}
			show.update(v)
		}
	}
}

// failure says in one sentence why a run ended badly, or why its end is not known.
func (f *follower) failure(ctx context.Context, err error) error {
	var app *temporal.ApplicationError
	var canceled *temporal.CanceledError
	var unavailable *serviceerror.Unavailable
	switch {
	case err == nil:
		return nil
	case errors.As(err, &app):
		return fmt.Errorf("run %s failed: %s: %s\nmend the cause, then: starter resume %s%s; it runs as its file was, so after a change of the file: starter run FILE", f.id, app.Type(), app.Message(), f.id, f.flag)
	case errors.As(err, &canceled):
		return fmt.Errorf("run %s was cancelled; starter resume %s%s goes on from what it has", f.id, f.id, f.flag)
	case ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*serviceerror.DeadlineExceeded)) || errors.As(err, &unavailable)):
		return fmt.Errorf("no answer from Temporal any more (%w); run %s goes on when it does and a worker is there. Then: starter status --follow %s%s", err, f.id, f.id, f.flag)
	}
	return err
}

// look asks the run for its state, and Temporal for the heartbeats of its stages.
func (f *follower) look(ctx context.Context) (view, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	v := view{live: map[string]liveStage{}}
	answer, err := f.temporal.QueryWorkflow(ctx, f.id, f.runID, workflows.ProgressQuery)
	if err != nil {
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // the question may have taken all of ctx
		defer cancel()
		if _, ill := f.temporal.CheckHealth(asking, nil); ill != nil {
			return v, errors.New("no answer from Temporal; the run goes on when there is one")
		}
		if served(asking, f.temporal, workflows.QueueControl, enumspb.TASK_QUEUE_TYPE_WORKFLOW) {
			return v, fmt.Errorf("the run does not answer yet: %w", err)
		}
		return v, fmt.Errorf("no worker serves queue %s; start one: worker --queues %s", workflows.QueueControl, strings.Join(workflows.Queues, ","))
	}
	if err := answer.Get(&v.progress); err != nil {
		return v, err
	}
	waits := map[string]bool{}
	// The run's own activities: keys being resolved, a worker asked for its device.
	for _, p := range f.pending(ctx, f.id) {
		f.wait(ctx, p, p.GetActivityType().GetName(), waits)
	}
	for _, r := range v.progress.Running {
		if r.WorkflowID == "" || r.Waiting {
			continue
		}
		var shards []activities.Progress
		for _, p := range f.pending(ctx, r.WorkflowID) {
			live := describePending(p)
			live.started = live.started || v.live[r.WorkflowID].started
			v.live[r.WorkflowID] = live
			if p.GetActivityType().GetName() == activities.ShardName(r.Stage) {
				shards = append(shards, live.Progress)
			}
			f.wait(ctx, p, r.Stage, waits)
		}
		if len(shards) > 0 {
			live := v.live[r.WorkflowID]
			live.Progress = f.shards(ctx, r.WorkflowID, shards)
			v.live[r.WorkflowID] = live
		}
	}
	v.waits = slices.Sorted(maps.Keys(waits))
	return v, nil
}

// shards is how far a divided stage is: the shards that are done, and what those under way spent as well.
func (f *follower) shards(ctx context.Context, id string, underWay []activities.Progress) activities.Progress {
	var p activities.Progress
	if answer, err := f.temporal.QueryWorkflow(ctx, id, "", workflows.ShardProgressQuery, true); err == nil {
		_ = answer.Get(&p) // an older worker's answer only misses here
	}
	p.Note = fmt.Sprintf("%d under way", len(underWay))
	for _, u := range underWay {
		p.Add(u)
	}
	return p
}

// pending returns the activities that a workflow waits for.
func (f *follower) pending(ctx context.Context, id string) []*workflowpb.PendingActivityInfo {
	d, err := f.temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return nil // it may have ended meanwhile
	}
	return d.GetPendingActivities()
}

// wait notes what an activity waits for: a worker of its queue, or an outage to end.
func (f *follower) wait(ctx context.Context, p *workflowpb.PendingActivityInfo, name string, waits map[string]bool) {
	queue, note := workflows.QueueOf(name), describePending(p).Note
	switch {
	case name == activities.AwaitName && note != "":
		waits[note] = true
	case p.GetState() == enumspb.PENDING_ACTIVITY_STATE_SCHEDULED && !served(ctx, f.temporal, queue, enumspb.TASK_QUEUE_TYPE_ACTIVITY):
		waits[fmt.Sprintf("no worker serves queue %s, which %s needs; start one: worker --queues %s", queue, name, queue)] = true
	case p.GetAttempt() > 2 && p.GetLastFailure().GetApplicationFailureInfo().GetType() != activities.Handover:
		waits[fmt.Sprintf("%s is tried again after: %s", name, firstLine(p.GetLastFailure().GetMessage()))] = true
	}
}

func describePending(p *workflowpb.PendingActivityInfo) liveStage {
	s := liveStage{started: p.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED, attempt: p.GetAttempt(), failure: p.GetLastFailure().GetMessage()}
	var payloads *commonpb.Payloads = p.GetHeartbeatDetails()
	if payloads != nil {
		_ = converter.GetDefaultDataConverter().FromPayloads(payloads, &s.Progress) // an older worker's details only miss here
	}
	return s
}

// served tells whether a worker polls the queue. When Temporal cannot say, it is assumed.
func served(ctx context.Context, c client.Client, queue string, kind enumspb.TaskQueueType) bool {
	d, err := c.DescribeTaskQueue(ctx, queue, kind)
	if err != nil {
		return true
	}
	for _, p := range d.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) < 90*time.Second {
			return true
		}
	}
	return false
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 300 { // causes and advice stand at the end, paths in the middle
		line = line[:100] + " … " + line[len(line)-180:]
	}
	return strings.ToValidUTF8(line, "")
}

func listFailures(failed map[string]string) string {
	var parts []string
	for _, cell := range slices.Sorted(maps.Keys(failed)) {
		parts = append(parts, fmt.Sprintf("%s (%s)", cell, firstLine(failed[cell])))
	}
	return strings.Join(parts, "; ")
}
