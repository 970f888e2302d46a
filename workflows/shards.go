package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
)

// shardWindow makes a stage's next shards and waits for all of them, so that none is under way when the workflow continues as new. The first
// failure that retries do not mend stops the others: they may cost money.
func shardWindow(ctx workflow.Context, call *activities.Call) error {
	at := call.Shards
	asked := *call
	asked.Shards = &activities.Shards{Count: at.Count, Size: at.Size, Window: at.Window}
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	var failed error
	wg := workflow.NewWaitGroup(ctx)
	end := min(at.Next+at.Window, at.Count)
	done := at.Next
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
			done++
			at.Done += d.Done
			at.SpentUSD += d.SpentUSD
			workflow.SetCurrentDetails(ctx, shardDetails(done, *at))
		})
	}
	wg.Wait(ctx)
	if failed != nil {
		return failed
	}
	at.Next = end
	return ctx.Err()
}

func shardDetails(done int, s activities.Shards) string {
	p := activities.Progress{Unit: "shard", Done: int64(done), Total: int64(s.Count), Spent: s.SpentUSD}
	return p.Markdown()
}
