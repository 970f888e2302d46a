package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
)

// beats calls beat as often as an activity with this heartbeat timeout should tell that it lives, until ctx ends or beat returns false.
func beats(ctx context.Context, timeout time.Duration, beat func() bool) {
	if timeout <= 0 {
		return
	}
	ticker := time.NewTicker(min(timeout/4, 5*time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if !beat() {
				return
			}
		}
	}
}

// beating tells the server that an activity lives, until stop is called: it may hash files for long before there is a stage that tells of
// its progress.
func beating(ctx context.Context, stage string) (stop func()) {
	if !activity.IsActivity(ctx) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		beats(ctx, activity.GetInfo(ctx).HeartbeatTimeout, func() bool {
			activity.RecordHeartbeat(ctx, Progress{Stage: stage, Note: "looking at the files it reads"})
			return true
		})
	}()
	return func() { cancel(); <-ended }
}

var errStalled = &problem{StoreUnavailable, errors.New("no progress for ten minutes; giving the stage to another attempt")}

// stallAfter is how long a stage may stand still. It is a variable for tests.
var stallAfter = 10 * time.Minute

// heartbeats tells the server of progress until the stage ends. When nothing moves for ten minutes it
// stops, so that a hung attempt is replaced instead of being kept alive.
func (j *job) heartbeats(ctx context.Context, stop context.CancelCauseFunc, timeout time.Duration) {
	seen, since := j.moves.Load(), time.Now()
	beats(ctx, timeout, func() bool {
		if now := j.moves.Load(); now != seen {
			seen, since = now, time.Now()
		} else if time.Since(since) > stallAfter {
			stop(errStalled)
			return false
		}
		p := j.progress.Load()
		if p == nil {
			p = &Progress{Stage: j.call.Stage}
		}
		activity.RecordHeartbeat(ctx, *p)
		j.tell(ctx, *p)
		return true
	})
}
