package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/longalign/longalign-go/workflows"
)

// display shows views.
type display interface {
	update(view)
	close()
}

func (f *follower) display() display {
	screen, ok := f.out.(*console)
	if !ok {
		screen = &console{out: f.out}
	}
	if !screen.terminal() {
		return &lines{out: screen, every: 15 * time.Second}
	}
	b := &bars{screen: screen, out: mpb.New(mpb.WithOutput(screen.out), mpb.WithAutoRefresh(), mpb.WithWidth(40)), bars: map[string]*mpb.Bar{}, lines: &lines{}, began: time.Now()}
	screen.above(b.out)
	return b
}

// console is where bars and the notices of others meet: while bars are drawn, what is written goes above them.
type console struct {
	out  io.Writer
	mu   sync.Mutex
	bars io.Writer // nil while no bars are drawn
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bars != nil {
		return c.bars.Write(p)
	}
	return c.out.Write(p)
}

// above sends what is written above bars from now on; nil says that they are gone.
func (c *console) above(bars io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bars = bars
}

func (c *console) terminal() bool {
	file, ok := c.out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// lines writes one line for each thing that changed.
type lines struct {
	out   io.Writer
	every time.Duration // how often a running stage is mentioned
	seen  map[string]time.Time
	made  map[string]int
	again map[string]int
	tries map[string]int32
	pace  pace
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
	if text := l.pace.remaining(v, now); text != "" && l.every > 0 && now.Sub(l.seen[overall]) >= 2*l.every {
		l.seen[overall] = now
		out = append(out, text)
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
	screen *console
	out    *mpb.Progress
	bars   map[string]*mpb.Bar
	live   sync.Map // progress as text by workflow ID; the library draws from a goroutine of its own
	lines  *lines
	pace   pace
	began  time.Time
}

// overall names the bar, and the line, of the whole run.
const overall = "overall"

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
	b.whole(v)
	for id, bar := range b.bars {
		if id != overall && !slices.ContainsFunc(v.progress.Running, func(r workflows.RunningCall) bool { return r.WorkflowID == id }) {
			bar.Abort(true)
			delete(b.bars, id)
		}
	}
}

// whole shows how far the whole run is, below the bars of its stages.
func (b *bars) whole(v view) {
	if v.progress.Cells == 0 {
		return
	}
	bar, ok := b.bars[overall]
	if !ok {
		bar = b.out.AddBar(int64(v.progress.Cells), mpb.BarPriority(math.MaxInt),
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-12s %-28s", "run", "cells"))),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
				text, _ := b.live.Load(overall)
				return fmt.Sprintf("%d/%d, %s%s", s.Current, s.Total, time.Since(b.began).Round(time.Second), text)
			})))
		b.bars[overall] = bar
	}
	text := b.pace.remaining(v, time.Now())
	if text != "" {
		text = "; " + text
	}
	b.live.Store(overall, text)
	bar.SetCurrent(int64(v.progress.CellsDone))
}

func (b *bars) close() {
	b.screen.above(nil)
	for _, bar := range b.bars {
		bar.Abort(true)
	}
	b.out.Wait()
}
