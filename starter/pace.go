package main

import (
	"fmt"
	"strings"
	"time"
)

// pace foretells how long the stages take of which a run has several to make, from how fast it made them while being
// watched. A stage counts when its progress is known; what is asked for later is not in the estimate.
type pace struct {
	first map[string]mark // by stage, when its work was first seen under way
}

type mark struct {
	at   time.Time
	done float64
}

// worth is what must have been seen of a stage before anything is foretold.
const (
	worthTime = 5 * time.Second
	worthPart = 0.1 // of one result
)

// remaining says of every stage with work left how much is done, and how long the rest takes; empty when nothing is known.
func (p *pace) remaining(v view, now time.Time) string {
	if p.first == nil {
		p.first = map[string]mark{}
	}
	var parts []string
	for _, s := range v.progress.Stages {
		done, left := float64(s.Made), 0
		for _, r := range v.progress.Running {
			if r.Stage != s.Stage || r.Waiting {
				continue
			}
			left++
			if live, ok := v.live[r.WorkflowID]; ok && live.Total > 0 {
				done += float64(live.Done) / float64(live.Total)
			}
		}
		if left == 0 {
			delete(p.first, s.Stage)
			continue
		}
		begun, ok := p.first[s.Stage]
		if !ok {
			begun = mark{now, done}
			p.first[s.Stage] = begun
		}
		took, part := now.Sub(begun.at), done-begun.done
		if took < worthTime || part < worthPart {
			continue
		}
		rest := time.Duration(float64(took) * (float64(s.Made+left) - done) / part)
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
