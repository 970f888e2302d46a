package main

import (
	"fmt"
	"strings"
	"time"
)

// pace foretells how long the stages take of which a run has several to make, from how fast it made them while being
// watched. A stage counts when its progress is known; what is asked for later is not in the estimate.
type pace struct {
	seen map[string]*mark // by stage, since its work was first seen
}

// mark is what was seen of a stage. Time in which all its work waited for a worker, as the predictions of a study do
// while the device trains, says nothing of how long the work takes.
type mark struct {
	first, done float64       // results done at the first look and at the last
	last        time.Time     // of the last look
	worked      time.Duration // between looks that found work under way or results made
}

// worth is what must have been seen of a stage before anything is foretold.
const (
	worthTime = 5 * time.Second
	worthPart = 0.1 // of one result
)

// remaining says of every stage with work left how much is done, and how long the rest takes; empty when nothing is known.
func (p *pace) remaining(v view, now time.Time) string {
	if p.seen == nil {
		p.seen = map[string]*mark{}
	}
	var parts []string
	for _, s := range v.progress.Stages {
		done, left, underWay := float64(s.Made), 0, false
		for _, r := range v.progress.Running {
			if r.Stage != s.Stage || r.Waiting {
				continue
			}
			left++
			live := v.live[r.WorkflowID]
			underWay = underWay || live.started
			if live.Total > 0 {
				done += float64(live.Done) / float64(live.Total)
			}
		}
		if left == 0 {
			delete(p.seen, s.Stage)
			continue
		}
		m, ok := p.seen[s.Stage]
		if !ok {
			m = &mark{first: done, done: done, last: now}
			p.seen[s.Stage] = m
		}
		if underWay || done > m.done {
			m.worked += now.Sub(m.last)
		}
		m.done, m.last = done, now
		part := done - m.first
		if m.worked < worthTime || part < worthPart {
			continue
		}
		rest := time.Duration(float64(m.worked) * (float64(s.Made+left) - done) / part)
		parts = append(parts, fmt.Sprintf("%s %d of %d made, about %s left", s.Stage, s.Made, s.Made+left, roughly(rest)))
	}
	return strings.Join(parts, "; ")
}

// roughly gives a time in one or two units: 40s, 12m, 3h20m, 2d4h.
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()+0.5))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()+0.5))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
