package activities

import (
	"context"
	"fmt"
	"strings"
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
	last time.Time
	sent int
}

const (
	signalEvery = 10 * time.Second
	signalsMost = 200
)

func (s *signaller) tell(ctx context.Context, a *Activities, p Progress) {
	if a.Temporal == nil || !activity.IsActivity(ctx) || time.Since(s.last) < signalEvery*time.Duration(1+s.sent/20) || s.sent >= signalsMost {
		return
	}
	s.last = time.Now()
	s.sent++
	e := activity.GetInfo(ctx).WorkflowExecution
	// The details are for reading only: when they cannot be sent, the work goes on.
	_ = a.Temporal.SignalWorkflow(ctx, e.ID, e.RunID, ProgressSignal, p)
}

// beat sends the progress at once; the SDK sends at most one a second.
func (j *job) beat(ctx context.Context) {
	if p := j.progress.Load(); p != nil && activity.IsActivity(ctx) {
		activity.RecordHeartbeat(ctx, *p)
	}
}
