package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/longalign/longalign-go/datasets"
)

// batchesStage plans the optimizer steps of all epochs. Outputs: plan-<epoch>.jsonl as of starter plan,
// report.json.
var batchesStage = stage{name: "batches", version: 1, describe: describeParams[datasets.BatchesParams], run: runBatches}

// BatchesReport is what the batches stage says about its plans.
type BatchesReport struct {
	Params datasets.BatchesParams `json:"params"`
	Epochs []datasets.PlanStats   `json:"epochs"`
	Ledger datasets.Ledger        `json:"ledger"` // over all epochs
	Steps  int                    `json:"steps"`
}

func runBatches(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.BatchesParams](j.call.Params)
	if err != nil {
		return err
	}
	set, closeSet, err := j.sequences(ctx, "tokens")
	if err != nil {
		return err
	}
	defer closeSet()
	report := BatchesReport{Params: p}
	lengths := set.Lengths()
	for epoch := range p.Epochs {
		plan, err := datasets.NewPlan(lengths, p, epoch)
		if err != nil {
			return badConfig("%w", err)
		}
		ledger, err := plan.Ledger(set)
		if err != nil {
			return err
		}
		stats := plan.Stats(lengths)
		stats.Seconds = 0 // measured: it would make equal plans differ
		report.Epochs = append(report.Epochs, stats)
		report.Ledger.Add(ledger)
		report.Steps += plan.Steps()
		var b bytes.Buffer
		if err := plan.WriteJSON(&b); err != nil {
			return err
		}
		if err := j.put(ctx, planName(epoch), "application/jsonl", &b); err != nil {
			return err
		}
		j.report(ctx, Progress{Done: int64(epoch + 1), Total: int64(p.Epochs), Unit: "epoch"})
	}
	if report.Steps == 0 {
		return badData("no batches: every sequence was dropped (max_length %d); raise batches.max_length", p.MaxLength)
	}
	j.count("steps", int64(report.Steps))
	j.count("sequences", int64(len(lengths)))
	if j.manifest.Ledger, err = json.Marshal(report.Ledger); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

func planName(epoch int) string { return fmt.Sprintf("plan-%d.jsonl", epoch) }

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
		data, err := j.a.Store.ReadBlob(ctx, blob)
		if err != nil {
			return nil, report, err
		}
		plan, err := datasets.ReadPlan(bytes.NewReader(data))
		if err != nil {
			return nil, report, badData("%w", err)
		}
		plan.Method, plan.MaxLength, plan.OverLength = report.Params.Method, report.Params.MaxLength, report.Params.OverLength
		plans[epoch] = plan
	}
	return plans, report, nil
}
