package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/term"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/workflows"
)

// follower shows a run until it ends: bars on a terminal, plain lines elsewhere.
type follower struct {
	temporal   client.Client
	connection activities.Connection
	id, runID  string
	out        io.Writer
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
			return o.result, runFailure(f.id, o.err)
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

// runFailure says in one sentence why a run ended badly.
func runFailure(id string, err error) error {
	var app *temporal.ApplicationError
	var canceled *temporal.CanceledError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &app):
		return fmt.Errorf("run %s failed: %s: %s\nmend the cause, then: starter resume %s", id, app.Type(), app.Message(), id)
	case errors.As(err, &canceled):
		return fmt.Errorf("run %s was cancelled; starter resume %s goes on from what it has", id, id)
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
		if served(ctx, f.temporal, workflows.QueueControl, enumspb.TASK_QUEUE_TYPE_WORKFLOW) {
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
		for _, p := range f.pending(ctx, r.WorkflowID) {
			v.live[r.WorkflowID] = describePending(p)
			f.wait(ctx, p, r.Stage, waits)
		}
	}
	v.waits = slices.Sorted(maps.Keys(waits))
	return v, nil
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
	queue := workflows.QueueOf(name)
	switch {
	case p.GetState() == enumspb.PENDING_ACTIVITY_STATE_SCHEDULED && !served(ctx, f.temporal, queue, enumspb.TASK_QUEUE_TYPE_ACTIVITY):
		waits[fmt.Sprintf("no worker serves queue %s, which %s needs; start one: worker --queues %s", queue, name, queue)] = true
	case p.GetAttempt() > 2 && p.GetLastFailure().GetApplicationFailureInfo().GetType() != activities.Handover:
		waits[fmt.Sprintf("%s is tried again after: %s", name, firstLine(p.GetLastFailure().GetMessage()))] = true
	}
}

func describePending(p *workflowpb.PendingActivityInfo) liveStage {
	s := liveStage{attempt: p.GetAttempt(), failure: p.GetLastFailure().GetMessage()}
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

// display shows views.
type display interface {
	update(view)
	close()
}

func (f *follower) display() display {
	if file, ok := f.out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &bars{out: mpb.New(mpb.WithOutput(f.out), mpb.WithAutoRefresh(), mpb.WithWidth(40)), bars: map[string]*mpb.Bar{}, lines: &lines{}}
	}
	return &lines{out: f.out, every: 15 * time.Second}
}

// lines writes one line for each thing that changed.
type lines struct {
	out   io.Writer
	every time.Duration // how often a running stage is mentioned
	seen  map[string]time.Time
	made  map[string]int
	again map[string]int
	tries map[string]int32
}

func (l *lines) update(v view) {
	for _, line := range l.changes(v) {
		fmt.Fprintf(l.out, "%s  %s\n", time.Now().Format("15:04:05"), line)
	}
}

func (l *lines) close() {}

// changes returns what is new since the last view.
func (l *lines) changes(v view) []string {
	if l.seen == nil {
		l.seen, l.made, l.again, l.tries = map[string]time.Time{}, map[string]int{}, map[string]int{}, map[string]int32{}
	}
	var out []string
	now := time.Now()
	for _, s := range v.progress.Stages {
		if s.Made > l.made[s.Stage] || s.Reused > l.again[s.Stage] {
			l.made[s.Stage], l.again[s.Stage] = s.Made, s.Reused
			out = append(out, fmt.Sprintf("%-13s %s", s.Stage, counts(s)))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.live)) {
		live := v.live[id]
		if live.attempt > 1 && live.attempt > l.tries[id] {
			l.tries[id] = live.attempt
			out = append(out, fmt.Sprintf("%-13s attempt %d: %s", live.Stage, live.attempt, firstLine(live.failure)))
		}
		if l.every > 0 && live.Done > 0 && now.Sub(l.seen[id]) >= l.every {
			l.seen[id] = now
			out = append(out, fmt.Sprintf("%-13s %s", live.Stage, live.Progress))
		}
	}
	for _, w := range v.waits {
		// Attempts of one activity differ in their details only.
		what, _, _ := strings.Cut(w, ": ")
		if now.Sub(l.seen[what]) >= 30*time.Second {
			l.seen[what] = now
			out = append(out, "waiting: "+w)
		}
	}
	return out
}

func counts(s workflows.StageCount) string {
	switch {
	case s.Made == 0:
		return fmt.Sprintf("%d reused", s.Reused)
	case s.Reused == 0:
		return fmt.Sprintf("%d made", s.Made)
	}
	return fmt.Sprintf("%d made, %d reused", s.Made, s.Reused)
}

// bars shows running stages as bars below the lines of what is done.
type bars struct {
	out   *mpb.Progress
	bars  map[string]*mpb.Bar
	live  sync.Map // progress as text by workflow ID; the library draws from a goroutine of its own
	lines *lines
}

func (b *bars) update(v view) {
	for _, line := range b.lines.changes(v) {
		fmt.Fprintln(b.out, line)
	}
	for _, r := range v.progress.Running {
		s, ok := v.live[r.WorkflowID]
		if !ok || s.Done == 0 {
			continue
		}
		bar, ok := b.bars[r.WorkflowID]
		if !ok {
			id := r.WorkflowID
			bar = b.out.AddBar(max(s.Total, 1), mpb.BarRemoveOnComplete(),
				mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-12s %-28.28s", r.Stage, r.Label))),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { text, _ := b.live.Load(id); return fmt.Sprint(text) }), decor.Name("  "), decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO), "")))
			b.bars[r.WorkflowID] = bar
		}
		b.live.Store(r.WorkflowID, s.Progress.String())
		bar.SetTotal(max(s.Total, s.Done, 1), false)
		bar.SetCurrent(min(s.Done, max(s.Total, 1)-1))
	}
	for id, bar := range b.bars {
		if !slices.ContainsFunc(v.progress.Running, func(r workflows.RunningCall) bool { return r.WorkflowID == id }) {
			bar.Abort(true)
			delete(b.bars, id)
		}
	}
}

func (b *bars) close() {
	for _, bar := range b.bars {
		bar.Abort(true)
	}
	b.out.Wait()
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
