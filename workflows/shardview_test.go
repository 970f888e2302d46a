package workflows

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/activities"
)

func TestWhatShardsSpendIsSeenWhileTheyAreUnderWay(t *testing.T) {
	v := shardView{of: activities.Shards{Count: 5, Next: 2, SpentUSD: 4}, done: map[int]bool{}, live: map[int]activities.Progress{}}
	tell := func(number int, usd float64) { v.tell(activities.Progress{Shard: number, Spent: usd}) }
	for _, step := range []struct {
		claim string
		do    func()
		want  activities.Progress
	}{
		{"a window before this one", func() {}, activities.Progress{Done: 2, Spent: 4}},
		{"two under way", func() { tell(3, 1); tell(4, 0.5) }, activities.Progress{Done: 2, Spent: 5.5}},
		{"one goes on", func() { tell(4, 0.75) }, activities.Progress{Done: 2, Spent: 5.75}},
		{"one is done and counts once", func() { v.finished(2, activities.Shards{Count: 5, Next: 2, SpentUSD: 5.25}) }, activities.Progress{Done: 3, Spent: 6}},
		{"what it told before comes late", func() { tell(3, 1) }, activities.Progress{Done: 3, Spent: 6}},
	} {
		step.do()
		step.want.Unit, step.want.Total = "shard", 5
		if diff := cmp.Diff(step.want, v.progress(false)); diff != "" {
			t.Errorf("%s: %s", step.claim, diff)
		}
	}
	if got := v.progress(true).Spent; got != 5.25 {
		t.Errorf("those done spent %v", got)
	}
}
