package activities

import (
	"encoding/json"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/reports"
)

// What judges and endpoints cost is known within bounds before a model is trained: the questions are there.
func TestWhatBenchmarksCostIsForeseen(t *testing.T) {
	for benchmark, files := range map[string]map[string]string{
		datasets.BenchmarkLongBench: smallLongBench(), datasets.BenchmarkLongBenchChat: smallChat(), datasets.BenchmarkMTBench: smallMTBench(),
	} {
		t.Run(benchmark, func(t *testing.T) {
			p := newTiny(t)
			s := newService(t, func(string) string { return "So it is. [[2]]" })
			params := datasets.QuestionsParams{Benchmark: benchmark, Path: write(t, files)}
			if benchmark == datasets.BenchmarkLongBench {
				params.Datasets = smallDatasets
			}
			questions := p.make("questions", params, nil)
			e := s.endpoint("judge-20260131")
			e.PriceIn, e.PriceOut, e.MaxTokens = 1, 2, 100
			r := p.rehearse(t)
			foresee := func(stage string, params any, in refs) Forecast {
				raw, err := json.Marshal(params)
				if err != nil {
					t.Fatal(err)
				}
				call := Call{Stage: stage, Params: raw, Inputs: in}
				found, err := r.Resolve(t.Context(), call)
				if err != nil {
					t.Fatal(err)
				}
				call.Key = found.Key
				ref, err := r.Make(t.Context(), call)
				if err != nil {
					t.Fatal(err)
				}
				in["predictions"] = ref
				steps := r.Foreseen()
				return steps[len(steps)-1].Forecast
			}
			in := refs{"questions": questions}
			n := int(p.manifest(questions).Counts["questions"])
			answering := datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: benchmark, Endpoint: e}}
			answers := foresee("predictions", answering, in)
			if answers.Samples != n || answers.Money == nil || answers.Money.USD.Low <= 0 {
				t.Errorf("answers: %+v", answers)
			}
			judging := datasets.JudgmentsParams{Benchmark: benchmark, Endpoint: e}
			judgments := foresee("judgments", judging, in)
			predictions := p.make("predictions", answering, refs{"questions": questions})
			asked := s.asked
			if float64(asked) != answers.Money.Requests.Low {
				t.Errorf("asked %d times, foreseen %v", asked, answers.Money.Requests)
			}
			made := p.manifest(p.make("judgments", judging, refs{"questions": questions, "predictions": predictions}))
			if judgments.Samples != int(made.Counts["judgments"]) {
				t.Errorf("%d judgments, foreseen %d", made.Counts["judgments"], judgments.Samples)
			}
			m := judgments.Money
			if got := float64(s.asked - asked); m == nil || got != m.Requests.Low || m.USD.Low <= 0 || m.USD.High < 5*m.USD.Low {
				t.Errorf("the judge was asked %v times, foreseen %+v", got, m)
			}
			charges, err := (&job{a: p.Activities}).charges(t.Context(), []reports.StageUse{{Manifest: made}})
			if err != nil || charges[0].Forecast == nil || *charges[0].Forecast != (reports.Bounds{Low: m.USD.Low, High: m.USD.High}) {
				t.Errorf("what was foreseen is not kept beside what it took: %+v, %v", charges, err)
			}
			e.PriceIn, e.PriceOut = 0, 0
			if free := foresee("judgments", judging, in); free.Money != nil {
				t.Errorf("without prices: %+v", free.Money)
			}
		})
	}
}
