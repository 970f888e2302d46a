package activities

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
)

// ProgressSignal is the signal by which a running stage tells its workflow how far it is.
const ProgressSignal = "progress"

// Progress is what a heartbeat carries: at most a few hundred bytes.
type Progress struct {
	Stage string  `json:"stage"`
	Done  int64   `json:"done"`
	Total int64   `json:"total,omitempty"`
	Unit  string  `json:"unit,omitempty"`
	Loss  float64 `json:"loss,omitempty"`
	Rate  float64 `json:"rate,omitempty"` // tokens a second
	Spent float64 `json:"spent_usd,omitempty"`
	Note  string  `json:"note,omitempty"`
	// Shard is the number, from 1, of the shard that tells this; 0 is the stage itself.
	Shard int `json:"shard,omitempty"`
}

// Add adds o, of another shard, to p.
func (p *Progress) Add(o Progress) {
	p.Spent += o.Spent
	p.Rate += o.Rate
}

// String is the progress on one line: "step 12/40, loss 3.217, 9,120 tokens/s".
func (p Progress) String() string {
	var parts []string
	if p.Total > 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %d/%d", p.Unit, p.Done, p.Total)))
	} else if p.Done > 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %d", p.Unit, p.Done)))
	}
	if p.Loss != 0 {
		parts = append(parts, fmt.Sprintf("loss %.4f", p.Loss))
	}
	if p.Rate != 0 {
		parts = append(parts, fmt.Sprintf("%.0f tokens/s", p.Rate))
	}
	if p.Spent != 0 {
		parts = append(parts, fmt.Sprintf("%.2f USD spent", p.Spent))
	}
	if p.Note != "" {
		parts = append(parts, p.Note)
	}
	return strings.Join(parts, ", ")
}

// Markdown is the progress for the Temporal UI.
func (p Progress) Markdown() string { return "Running: " + p.String() + "." }

// signaller tells the stage's workflow of progress, rarely: each signal is a few events of history.
type signaller struct {
	mu    sync.Mutex
	every time.Duration // until the first signal and between early ones
	most  int           // signals in all
	last  time.Time
	sent  int
}

// A stage may signal some 200 times. Of its shards, of which 200 are under way at once, each has few: what they spend is seen within a minute.
func newSignaller(shards bool) signaller {
	if shards {
		return signaller{every: 20 * time.Second, most: 6, last: time.Now()}
	}
	return signaller{every: 10 * time.Second, most: 200}
}

// due tells whether a signal may be sent, and counts it.
func (s *signaller) due(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Shards' intervals double, stages' grow by one every twenty signals.
	wait := s.every * time.Duration(1+s.sent/20)
	if s.most < 20 {
		wait = s.every << s.sent
	}
	if now.Sub(s.last) < wait || s.sent >= s.most {
		return false
	}
	s.last = now
	s.sent++
	return true
}

// tell signals progress to the workflow, if it is time.
func (j *job) tell(ctx context.Context, p Progress) {
	if j.a.Temporal == nil || !activity.IsActivity(ctx) || !j.signals.due(time.Now()) {
		return
	}
	e := activity.GetInfo(ctx).WorkflowExecution
	// The details are for reading only: when they cannot be sent, the work goes on.
	_ = j.a.Temporal.SignalWorkflow(ctx, e.ID, e.RunID, ProgressSignal, p)
}

// beat sends the progress at once; the SDK sends at most one a second.
func (j *job) beat(ctx context.Context) {
	if p := j.progress.Load(); p != nil && activity.IsActivity(ctx) {
		activity.RecordHeartbeat(ctx, *p)
	}
}
