package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
)

// shardWindow makes a stage's next shards and waits for all of them, so that none is under way when the workflow continues as new. The first
// failure that retries do not mend stops the others: they may cost money.
func shardWindow(ctx workflow.Context, call *activities.Call, view *shardView) error {
	at := call.Shards
	view.of = *at
	asked := *call
	asked.Shards = &activities.Shards{Count: at.Count, Size: at.Size, Window: at.Window}
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	var failed error
	wg := workflow.NewWaitGroup(ctx)
	end := min(at.Next+at.Window, at.Count)
	for i := at.Next; i < end; i++ {
		wg.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wg.Done()
			var d activities.ShardDone
			options := working(ctx, call.Stage, fmt.Sprintf("%s · shard %d of %d", call.Label, i+1, at.Count))
			if err := workflow.ExecuteActivity(options, activities.ShardName(call.Stage), activities.ShardCall{Call: asked, Index: i}).Get(ctx, &d); err != nil {
				if failed == nil {
					failed = err
					cancel()
				}
				return
			}
			at.Done += d.Done
			at.SpentUSD += d.SpentUSD
			view.finished(i, *at)
			workflow.SetCurrentDetails(ctx, view.progress(false).Markdown())
		})
	}
	wg.Wait(ctx)
	if failed != nil {
		return failed
	}
	at.Next = end
	return ctx.Err()
}

// shardView is how far a stage's shards are, for people: those that are done, and what those under way tell of themselves.
type shardView struct {
	of   activities.Shards
	done map[int]bool                // of this window
	live map[int]activities.Progress // by shard
}

// ShardProgressQuery asks a stage's workflow how far its shards are, as an activities.Progress. With the argument true, what those under way
// told of themselves is left out: heartbeats are newer.
const ShardProgressQuery = "shards"

// tell notes what a shard says of itself, unless it is done by now.
func (v *shardView) tell(p activities.Progress) {
	if index := p.Shard - 1; !v.done[index] {
		v.live[index] = p
	}
}

func (v *shardView) finished(index int, of activities.Shards) {
	v.of = of
	v.done[index] = true
	delete(v.live, index)
}

// progress is that of all shards together, or of those that are done.
func (v *shardView) progress(doneOnly bool) activities.Progress {
	p := activities.Progress{Unit: "shard", Done: int64(v.of.Next + len(v.done)), Total: int64(v.of.Count), Spent: v.of.SpentUSD}
	if doneOnly {
		return p
	}
	for _, index := range sortedKeys(v.live) {
		p.Add(v.live[index])
	}
	return p
}
