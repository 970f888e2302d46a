package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/reports"
)

// scoresStage scores predictions, sample by sample. Output: scores.json.
var scoresStage = stage{name: "scores", version: 7, describe: describeParams[datasets.ScoresStageParams], outside: scoreFiles, run: runScores}

// Scores is the scores stage's output: samples by metric. Metrics of the paper's tables have its columns' names.
type Scores struct {
	Metrics map[string]reports.ScoreSet `json:"metrics"`
	// Judged names the metrics that are a judge's ratings.
	Judged []string `json:"judged,omitempty"`
	// AnsweredBy is the model of the endpoint that answered, "" for the cell's checkpoint; JudgedBy who rated the answers, "" for nobody.
	AnsweredBy string `json:"answered_by,omitempty"`
	JudgedBy   string `json:"judged_by,omitempty"`
	// Needle is the needle test's grid, of the benchmark of that name.
	Needle *reports.NeedleGrid `json:"needle,omitempty"`
	// NeedleCells are that grid's cells one by one, with where each needle came to lie.
	NeedleCells []NeedleCell `json:"needle_cells,omitempty"`
}

// NeedleCell is one cell of the needle test: what was asked for, what it became, and how it was answered.
type NeedleCell struct {
	ID     string `json:"_id"`
	Length int    `json:"length"` // tokens asked for
	Tokens int    `json:"actual_tokens"`
	// Depth was asked for; ActualDepth is the sentence end nearest to it. Both from 0 to 1.
	Depth       float64 `json:"depth"`
	ActualDepth float64 `json:"actual_depth"`
	// Exact is the share of the needle's phrases in the answer, in percent, Rating the judge's; nil where there is none.
	Exact  *float64 `json:"exact,omitempty"`
	Rating *float64 `json:"rating,omitempty"`
}

func runScores(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.ScoresStageParams](j.call.Params)
	if err != nil {
		return err
	}
	if p.Benchmark != nil {
		return runBenchmarkScores(ctx, j, *p.Benchmark)
	}
	predictions, err := j.predictions(ctx, "predictions")
	if err != nil {
		return err
	}
	scores := ScorePredictions(predictions)
	for name, set := range scores.Metrics {
		j.count(name, int64(len(set.Samples)))
	}
	return j.putJSON(ctx, "scores.json", scores)
}

// ScorePredictions scores each prediction by all metrics that apply to it: the loss by every one, exact match and F1 by
// those with a generated answer, the needle's effect by those with a needle. A failed prediction is a failed sample, never a zero.
func ScorePredictions(predictions []datasets.Prediction) Scores {
	s := Scores{Metrics: map[string]reports.ScoreSet{}}
	add := func(metric string, p datasets.Prediction, value float64) {
		set := s.Metrics[metric]
		set.Samples = append(set.Samples, reports.Sample{ID: p.ID, Value: value, Length: p.Targets, Failed: p.Failed != "", Truncated: p.Truncated})
		s.Metrics[metric] = set
	}
	for _, p := range predictions {
		if p.Failed != "" {
			add(reports.MetricLoss, p, 0)
			continue
		}
		add(reports.MetricLoss, p, p.NLL/float64(p.Targets))
		if p.AbsentNLL != nil {
			add(reports.MetricNeedle, p, *p.AbsentNLL-p.NLL)
		}
		if p.Generated != nil {
			exact := 0.0
			if strings.TrimSpace(*p.Generated) == strings.TrimSpace(p.Answer) {
				exact = 100
			}
			add(reports.MetricExact, p, exact)
			add(reports.MetricF1, p, 100*longbench.AnswerF1(*p.Generated, []string{p.Answer}))
		}
	}
	return s
}

// predictions reads the lines of an input's predictions.jsonl.
func (j *job) predictions(ctx context.Context, role string) ([]datasets.Prediction, error) {
	r, err := j.open(ctx, role, "predictions.jsonl")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []datasets.Prediction
	for d := json.NewDecoder(r); ; {
		var p datasets.Prediction
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("predictions.jsonl, line %d: %w", len(all)+1, err)
		}
		all = append(all, p)
	}
}
