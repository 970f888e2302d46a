package activities

import (
	"context"
	"slices"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// charges says what the results of a study took, by kind of work and by who did it, in the order data flowed.
func (j *job) charges(ctx context.Context, uses []reports.StageUse) ([]reports.Charge, error) {
	var all []reports.Charge
	for _, use := range uses {
		c, err := j.charge(ctx, use.Manifest)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(o reports.Charge) bool { return o.What == c.What && o.By == c.By && o.Paid == c.Paid })
		if i < 0 {
			all = append(all, c)
			continue
		}
		all[i].Add(c)
	}
	return all, nil
}

// charge is what one result took, by its manifest and what was measured when it was made.
func (j *job) charge(ctx context.Context, m *artifact.Manifest) (reports.Charge, error) {
	c := reports.Charge{What: m.Stage, Results: 1, Sources: []string{reports.Source(m.Ref())}}
	if !m.Started.IsZero() && m.Finished.After(m.Started) {
		c.Seconds = m.Finished.Sub(m.Started).Seconds()
	}
	if _, ok := m.Output(requestsFile); ok {
		var r RequestsReport
		if err := readOutput(ctx, j.a.Store, m, requestsFile, &r); err != nil {
			return c, err
		}
		c.By, c.Paid = r.Model, true
		c.Requests, c.InputTokens, c.OutputTokens, c.USD = int64(r.Usage.Requests), r.Usage.InputTokens, r.Usage.OutputTokens, r.Usage.SpentUSD
		if f := r.Forecast.USD; f.High > 0 {
			c.Forecast = &reports.Bounds{Low: f.Low, High: f.High}
		}
	}
	switch m.Stage {
	case "instructions":
		if c.What = "instructions by rules"; c.Paid {
			c.What = "teacher"
		}
	case "judgments":
		if c.What = "judgments by rules"; c.Paid {
			c.What = "judge"
		}
	case "predictions":
		p, err := recordedParams[datasets.PredictionsStageParams](m.Params)
		if err == nil && p.Answer != nil {
			c.What = "answers to " + p.Answer.Benchmark
		}
	case "checkpoint":
		return j.trainingCharge(ctx, m, c)
	}
	return c, nil
}

// trainingCharge adds the device's time.
func (j *job) trainingCharge(ctx context.Context, m *artifact.Manifest, c reports.Charge) (reports.Charge, error) {
	p, err := recordedParams[datasets.CheckpointParams](m.Params)
	if err != nil {
		return c, err
	}
	switch p.Objective {
	case datasets.ObjectiveImport:
		c.What = "importing a model"
		return c, nil
	case datasets.ObjectivePretrain:
		c.What = "pre-training"
	default:
		c.What = "tuning"
	}
	var t Timings
	if err := readOutput(ctx, j.a.Store, m, "timings.json", &t); err != nil {
		return c, err
	}
	c.By, c.Seconds = t.Device, t.Seconds
	if t.ForecastSeconds > 0 {
		c.Forecasted, c.ForecastSeconds, c.TookSeconds = 1, t.ForecastSeconds, t.Seconds
	}
	return c, nil
}
