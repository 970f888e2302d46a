package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/workflows"
)

// watched is a run of four trainings of which some are made and one is under way where step > 0.
func watched(made, queued int, step int64) view {
	v := view{live: map[string]liveStage{"now": {Progress: activities.Progress{Done: step, Total: 10}, started: step > 0}}}
	v.progress.Stages = []workflows.StageCount{{Stage: "tokens", Made: 2}, {Stage: "checkpoint", Made: made, Reused: 1}}
	if step > 0 {
		v.progress.Running = append(v.progress.Running, workflows.RunningCall{Stage: "checkpoint", WorkflowID: "now"})
	}
	for range queued {
		v.progress.Running = append(v.progress.Running, workflows.RunningCall{Stage: "checkpoint"})
	}
	return v
}

func TestTheRestOfARunIsForetoldFromWhatWasSeenOfIt(t *testing.T) {
	var p pace
	start := time.Now()
	type look struct {
		After time.Duration
		Said  string
	}
	var got []look
	for _, l := range []struct {
		after time.Duration
		v     view
	}{
		{0, watched(0, 3, 5)},                 // half a training was done before anybody looked
		{2 * time.Second, watched(0, 3, 8)},   // too soon to tell
		{20 * time.Second, watched(1, 2, 5)},  // one training in 20 s, 2.5 to go
		{60 * time.Second, watched(3, 0, 5)},  // as fast as before
		{70 * time.Second, watched(4, 0, 0)},  // nothing left
		{500 * time.Second, watched(4, 1, 1)}, // asked for later: the pause does not count
		{520 * time.Second, watched(4, 1, 6)},
		{600 * time.Second, watched(6, 0, 0)},
		{700 * time.Second, watched(6, 3, 0)}, // three more wait for a worker that does other work,
		{900 * time.Second, watched(6, 3, 0)}, // for long
		{901 * time.Second, watched(6, 2, 1)},
		{911 * time.Second, watched(7, 1, 1)}, // one in some ten seconds since it began
	} {
		got = append(got, look{l.after, p.remaining(l.v, start.Add(l.after))})
	}
	want := []look{
		{0, ""},
		{2 * time.Second, ""},
		{20 * time.Second, "checkpoint 1 of 4 made, about 50s left"},
		{60 * time.Second, "checkpoint 3 of 4 made, about 10s left"},
		{70 * time.Second, ""},
		{500 * time.Second, ""},
		{520 * time.Second, "checkpoint 4 of 6 made, about 56s left"},
		{600 * time.Second, ""},
		{700 * time.Second, ""},
		{900 * time.Second, ""},
		{901 * time.Second, ""},
		{911 * time.Second, "checkpoint 7 of 9 made, about 19s left"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("foretold (-want +got):\n%s", diff)
	}
}

func TestTimesAreGivenRoughly(t *testing.T) {
	got := map[time.Duration]string{}
	want := map[time.Duration]string{40 * time.Second: "40s", 12 * time.Minute: "12m", 200 * time.Minute: "3h20m", 52 * time.Hour: "2d4h"}
	for d := range want {
		got[d] = roughly(d)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
}
