package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// benchmarks lists the cell's.
func (c Cell) benchmarks() []datasets.BenchmarkPlan {
	if c.Spec.Benchmarks == nil {
		return nil
	}
	return c.Spec.Benchmarks.Plans(c.Method, c.Seed)
}

// questions reads the benchmarks' files. It comes before the training, so that a file that cannot be used costs no days.
func (s *stages) questions(ctx workflow.Context, cell Cell, tokenizer artifact.Ref) (inputs, error) {
	made := inputs{}
	for _, b := range cell.benchmarks() {
		if b.Questions == nil {
			continue
		}
		var in inputs
		if b.Questions.Needle != nil { // its lengths are in the model's tokens
			in = inputs{"tokenizer": tokenizer}
		}
		ref, err := s.do(ctx, cell, "questions", b.Name, b.Questions, in)
		if err != nil {
			return nil, err
		}
		made[b.Name] = ref
	}
	return made, nil
}

// benchmarks puts the checkpoint through its benchmarks, all at once: while the device answers one, judges rate another.
func (s *stages) benchmarks(ctx workflow.Context, cell Cell, questions inputs, checkpoint, tokenizer artifact.Ref) (inputs, error) {
	scored := inputs{}
	var first error
	wg := workflow.NewWaitGroup(ctx)
	for _, b := range cell.benchmarks() {
		wg.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer wg.Done()
			ref, err := s.benchmark(ctx, cell, b, questions[b.Name], checkpoint, tokenizer)
			if err == nil {
				scored[b.Name] = ref
			} else if first == nil {
				first = err
			}
		})
	}
	wg.Wait(ctx)
	return scored, first
}

func (s *stages) benchmark(ctx workflow.Context, cell Cell, b datasets.BenchmarkPlan, questions, checkpoint, tokenizer artifact.Ref) (artifact.Ref, error) {
	in := inputs{}
	if b.Questions != nil {
		in["questions"] = questions
	}
	if b.Questions != nil || b.Harness {
		predictions, err := s.answers(ctx, cell, b, questions, checkpoint, tokenizer)
		if err != nil {
			return artifact.Ref{}, err
		}
		in["predictions"] = predictions
	}
	if b.Judge != "" {
		p := datasets.JudgmentsParams{Benchmark: b.Name, Judge: b.Judge, Endpoint: cell.Spec.endpoint(b.Judge), Seed: cell.Spec.Benchmarks.Seed}
		judgments, err := s.do(ctx, cell, "judgments", b.Name, p, inputs{"questions": questions, "predictions": in["predictions"]})
		if err != nil {
			return artifact.Ref{}, err
		}
		in["judgments"] = judgments
	}
	if e := cell.Spec.endpoint(cell.Spec.Benchmarks.Predictor); e != nil && b.Questions != nil {
		b.Scores.AnsweredBy = e.Model
	}
	return s.do(ctx, cell, "scores", b.Name, datasets.ScoresStageParams{ScoresParams: cell.Spec.Scores, Benchmark: &b.Scores}, in)
}

// answers asks the cell's checkpoint, or the endpoint that stands in for it.
func (s *stages) answers(ctx workflow.Context, cell Cell, b datasets.BenchmarkPlan, questions, checkpoint, tokenizer artifact.Ref) (artifact.Ref, error) {
	p := cell.Spec.Benchmarks
	params := datasets.PredictionsStageParams{
		PredictionsParams: datasets.PredictionsParams{Device: p.Device}, Template: p.Template, MaxLength: p.MaxLength,
		Answer: &datasets.AnswerParams{Benchmark: b.Name, Endpoint: cell.Spec.endpoint(p.Predictor), Seed: p.Seed},
	}
	in := inputs{"checkpoint": checkpoint, "questions": questions}
	switch {
	case b.Harness:
		in = inputs{"checkpoint": checkpoint}
	case params.Answer.Endpoint != nil:
		params.Template = "" // the service has its own
		in = inputs{"questions": questions}
		if p.MaxLength > 0 {
			in["tokenizer"] = tokenizer
		}
	}
	return s.do(ctx, cell, "predictions", b.Name, params, in)
}

// endpoint returns the endpoint of that name, nil for none.
func (s Spec) endpoint(name string) *datasets.EndpointParams {
	if e, ok := s.Endpoints[name]; ok {
		return &e
	}
	return nil
}

// checkBenchmarks checks the benchmarks' parameters, and that their judges and predictors are endpoints of the file.
func (s Spec) checkBenchmarks() error {
	if s.Benchmarks == nil {
		return nil
	}
	return at("benchmarks", s.Benchmarks.Validate(sortedKeys(s.Endpoints)))
}

// fillBenchmarks fills in what the experiment says elsewhere.
func (s Spec) fillBenchmarks() *datasets.BenchmarksParams {
	if s.Benchmarks == nil {
		return nil
	}
	p := *s.Benchmarks
	if p.Template == "" {
		p.Template = s.Tokens.Template
	}
	if p.Device == "" {
		p.Device = s.Predictions.Device
	}
	return &p
}

// benchmarkInputs are a cell's scores in benchmarks as inputs of the tables.
func benchmarkInputs(cell string, scored inputs, in inputs) {
	for name, ref := range scored {
		in[activities.BenchmarkRole(cell, name)] = ref
	}
}
