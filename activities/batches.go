package activities

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/tokens"
)

// batchesStage plans the optimizer steps of all epochs. Outputs: plan-<epoch>.jsonl as of starter plan,
// report.json. Epochs of several blocks (see datasets.BatchesParams) are planned block by block.
var batchesStage = stage{
	name: "batches", version: 1, describe: describeBatches, run: runBatches,
	division: &division{size: func(json.RawMessage) (int, error) { return 1, nil }, items: planItems, join: joinBatches},
}

// describeBatches says that packs of like cost share a step: steps of like cost were what balancing by compute made once, and results from
// then have other keys.
func describeBatches(raw json.RawMessage) (json.RawMessage, error) {
	p, err := decodeParams[datasets.BatchesParams](raw)
	if err != nil {
		return nil, err
	}
	if p.Balance != datasets.BalanceCompute || p.SequencesPerStep > 0 {
		return describeParams[datasets.BatchesParams](raw)
	}
	return meaning(struct {
		datasets.BatchesParams
		Alike string `json:"alike"`
	}{p, "packs"})
}

// BatchesReport is what the batches stage says about its plans.
type BatchesReport struct {
	Params datasets.BatchesParams `json:"params"`
	Epochs []datasets.PlanStats   `json:"epochs"`
	Ledger datasets.Ledger        `json:"ledger"` // over all epochs
	Steps  int                    `json:"steps"`
}

// planItem is what is divided among shards: a block of an epoch.
type planItem struct {
	Epoch int `json:"epoch"`
	Block int `json:"block"`
}

// planItems lists the blocks of all epochs. Epochs of one block are planned together: they are one item.
func planItems(ctx context.Context, j *job) (iter.Seq2[any, error], error) {
	p, set, err := j.planned(ctx)
	if err != nil {
		return nil, err
	}
	blocks, err := datasets.PlanBlocks(set.Lengths(), p)
	if err != nil {
		return nil, badConfig("%w", err)
	}
	epochs := p.Epochs
	if blocks == 1 {
		epochs = 1
	}
	return func(yield func(any, error) bool) {
		for epoch := range epochs {
			for block := range blocks {
				if !yield(planItem{epoch, block}, nil) {
					return
				}
			}
		}
	}, nil
}

// planned is what a plan is made from: parameters and lengths. Tokens stay where they are.
func (j *job) planned(ctx context.Context) (datasets.BatchesParams, *tokens.Set, error) {
	p, err := decodeParams[datasets.BatchesParams](j.call.Params)
	if err != nil {
		return p, nil, err
	}
	set, err := j.sequenceIndex(ctx, "tokens")
	return p, set, err
}

func runBatches(ctx context.Context, j *job) error {
	if j.shard != nil {
		return runPlanShard(ctx, j)
	}
	p, set, err := j.planned(ctx)
	if err != nil {
		return err
	}
	lengths := set.Lengths()
	return j.putPlans(ctx, p, lengths, func(epoch int) (datasets.Plan, datasets.Ledger, error) {
		plan, err := datasets.NewPlan(lengths, p, epoch)
		if err != nil {
			return plan, datasets.Ledger{}, badConfig("%w", err)
		}
		ledger, err := plan.Ledger(set)
		return plan, ledger, err
	})
}

// blockReport is what a shard says about the blocks it planned.
type blockReport struct {
	Blocks  []planItem        `json:"blocks"`
	Dropped []int             `json:"dropped"` // sequences left out, by block
	Ledgers []datasets.Ledger `json:"ledgers"`
}

// runPlanShard plans the blocks of a shard's part. Outputs: block-<n>.jsonl, report.json.
func runPlanShard(ctx context.Context, j *job) error {
	p, set, err := j.planned(ctx)
	if err != nil {
		return err
	}
	lengths := set.Lengths()
	var report blockReport
	for item, err := range lines[planItem](ctx, j, partsRole, j.shard.file()) {
		if err != nil {
			return err
		}
		plan, err := datasets.PlanBlock(lengths, p, item.Epoch, item.Block)
		if err != nil {
			return badConfig("%w", err)
		}
		ledger, err := plan.Ledger(set)
		if err != nil {
			return err
		}
		if err := j.putPlan(ctx, blockName(len(report.Blocks)), plan); err != nil {
			return err
		}
		report.Blocks = append(report.Blocks, item)
		report.Dropped = append(report.Dropped, len(plan.Dropped))
		report.Ledgers = append(report.Ledgers, ledger)
		j.report(ctx, Progress{Done: int64(len(report.Blocks)), Unit: "block"})
	}
	return j.putJSON(ctx, "report.json", report)
}

func blockName(n int) string { return fmt.Sprintf("block-%d.jsonl", n) }

// joinBatches puts the blocks of each epoch one after the other.
func joinBatches(ctx context.Context, j *job, shards []*artifact.Manifest) error {
	p, set, err := j.planned(ctx)
	if err != nil {
		return err
	}
	type place struct {
		shard   *artifact.Manifest
		number  int
		dropped int
		ledger  datasets.Ledger
	}
	places := make([][]place, p.Epochs)
	for _, m := range shards {
		var r blockReport
		if err := j.output(ctx, m, "report.json", &r); err != nil {
			return err
		}
		if len(r.Dropped) != len(r.Blocks) || len(r.Ledgers) != len(r.Blocks) {
			return badData("shard %s has a report of another version", m.Ref())
		}
		for n, item := range r.Blocks {
			if item.Epoch < 0 || item.Epoch >= p.Epochs || item.Block != len(places[item.Epoch]) {
				return badData("shard %s planned block %d of epoch %d out of turn", m.Ref(), item.Block, item.Epoch)
			}
			places[item.Epoch] = append(places[item.Epoch], place{m, n, r.Dropped[n], r.Ledgers[n]})
		}
	}
	return j.putPlans(ctx, p, set.Lengths(), func(epoch int) (datasets.Plan, datasets.Ledger, error) {
		var ledger datasets.Ledger
		blocks := make([]datasets.Plan, len(places[epoch]))
		for b, at := range places[epoch] {
			out, ok := at.shard.Output(blockName(at.number))
			if !ok {
				return datasets.Plan{}, ledger, badData("shard %s has no output %q", at.shard.Ref(), blockName(at.number))
			}
			if blocks[b], err = j.readPlan(ctx, out.Blob, p); err != nil {
				return datasets.Plan{}, ledger, err
			}
			blocks[b].Dropped = make([]int32, at.dropped) // which ones is not asked for
			ledger.Add(at.ledger)
		}
		return datasets.JoinPlans(blocks), ledger, nil
	})
}

// putPlans stores each epoch's plan and the report.
func (j *job) putPlans(ctx context.Context, p datasets.BatchesParams, lengths []int, plan func(epoch int) (datasets.Plan, datasets.Ledger, error)) error {
	report := BatchesReport{Params: p}
	for epoch := range p.Epochs {
		made, ledger, err := plan(epoch)
		if err != nil {
			return err
		}
		stats := made.Stats(lengths)
		stats.Seconds = 0 // measured: it would make equal plans differ
		report.Epochs = append(report.Epochs, stats)
		report.Ledger.Add(ledger)
		report.Steps += made.Steps()
		if err := j.putPlan(ctx, planName(epoch), made); err != nil {
			return err
		}
		j.report(ctx, Progress{Done: int64(epoch + 1), Total: int64(p.Epochs), Unit: "epoch"})
	}
	if report.Steps == 0 {
		return badData("no batches: every sequence was dropped (max_length %d); raise batches.max_length", p.MaxLength)
	}
	j.count("steps", int64(report.Steps))
	j.count("sequences", int64(len(lengths)))
	var err error
	if j.manifest.Ledger, err = json.Marshal(report.Ledger); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

// putPlan stores a plan by way of a file: that of a large epoch is a hundred megabytes.
func (j *job) putPlan(ctx context.Context, name string, plan datasets.Plan) error {
	path := filepath.Join(j.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := plan.WriteJSON(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := j.putFile(ctx, name, "application/jsonl", path); err != nil {
		return err
	}
	return os.Remove(path)
}

func planName(epoch int) string { return fmt.Sprintf("plan-%d.jsonl", epoch) }

// readPlan streams a plan that was made with p.
func (j *job) readPlan(ctx context.Context, blob artifact.Blob, p datasets.BatchesParams) (datasets.Plan, error) {
	in, err := j.a.Store.OpenBlob(ctx, blob)
	if err != nil {
		return datasets.Plan{}, err
	}
	defer in.Close()
	r := &noteError{Reader: in}
	plan, err := datasets.ReadPlan(bufio.NewReaderSize(r, 1<<20))
	switch {
	case r.err != nil:
		return plan, r.err // the store's own account
	case err != nil:
		return plan, badData("%w", err)
	}
	plan.Method, plan.MaxLength, plan.OverLength = p.Method, p.MaxLength, p.OverLength
	return plan, nil
}

// plans reads all epochs' plans of an input, ready to be laid out.
func (j *job) plans(ctx context.Context, role string) ([]datasets.Plan, BatchesReport, error) {
	var report BatchesReport
	if err := j.readJSON(ctx, role, "report.json", &report); err != nil {
		return nil, report, err
	}
	plans := make([]datasets.Plan, len(report.Epochs))
	for epoch := range plans {
		blob, err := j.inputBlob(ctx, role, planName(epoch))
		if err != nil {
			return nil, report, err
		}
		if plans[epoch], err = j.readPlan(ctx, blob, report.Params); err != nil {
			return nil, report, err
		}
	}
	return plans, report, nil
}
