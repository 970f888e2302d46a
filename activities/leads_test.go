package activities

import (
	"slices"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// benchmarkedRun is a run of one cell "c" that was trained and put through a small LongBench, with its study.
func (p *tiny) benchmarkedRun() (*artifact.RunRecord, *reports.Study) {
	p.t.Helper()
	base, questions, _, _, _ := p.longBench(write(p.t, smallLongBench()), nil)
	checkpoint, err := p.Run(p.t.Context(), p.training(base, nil))
	if err != nil {
		p.t.Fatal(err)
	}
	ours := p.make("predictions", datasets.PredictionsStageParams{PredictionsParams: datasets.PredictionsParams{MaxInstances: 2}, Template: "longalign", MaxLength: 1024},
		refs{"checkpoint": checkpoint, "instructions": base.instructions})
	plain := p.make("scores", datasets.ScoresParams{}, refs{"predictions": ours})
	// The benchmark is answered by the trained model.
	predictions := p.make("predictions", answerParams(datasets.BenchmarkLongBench), refs{"questions": questions, "checkpoint": checkpoint})
	judgments := p.make("judgments", datasets.JudgmentsParams{Benchmark: datasets.BenchmarkLongBench, Judge: "j"}, refs{"questions": questions, "predictions": predictions})
	scores := p.make("scores", scoreParams(datasets.BenchmarkLongBench, smallDatasets...), refs{"questions": questions, "predictions": predictions, "judgments": judgments})
	tables := p.make("tables", TablesParams{Params: reports.Params{Kind: reports.KindPaper}, Name: "s", Buckets: []int{8},
		Methods: []TablesMethod{{Name: "packing"}}, Cells: []TablesCell{{Name: "c", Method: "packing", Loss: datasets.LossLongAlign}}},
		refs{"documents": base.documents, "instructions": base.instructions, "tokens": base.tokens, "batches/c": base.batches, "checkpoint/c": checkpoint, "scores/c": plain,
			BenchmarkRole("c", datasets.BenchmarkLongBench): scores})
	run := &artifact.RunRecord{ID: "s-1", Cells: []string{"c"}, Tables: &tables}
	for _, u := range []struct {
		role string
		ref  artifact.Ref
	}{{"", base.documents}, {"", base.tokenizer}, {"", base.instructions}, {"instructions", base.tokens}, {"instructions", base.batches}, {"base", base.base},
		{"tuned", checkpoint}, {"", ours}, {"", plain}, {datasets.BenchmarkLongBench, questions}, {datasets.BenchmarkLongBench, predictions},
		{datasets.BenchmarkLongBench, judgments}, {datasets.BenchmarkLongBench, scores}} {
		run.Stages = append(run.Stages, artifact.StageCall{Cell: "c", Role: u.role, Stage: u.ref.Stage, Ref: u.ref})
	}
	study, err := ReadStudy(p.t.Context(), p.Store, tables, run)
	if err != nil {
		p.t.Fatal(err)
	}
	return run, study
}

func TestABenchmarksValueLeadsToTheDocumentsAndBack(t *testing.T) {
	p := newTiny(t)
	run, study := p.benchmarkedRun()
	a := &Activities{Store: p.Store}
	cells := TableCells(study)
	i := slices.IndexFunc(cells, func(c TableCell) bool { return c.Table == "benchmarks" && strings.Contains(c.Row, "qasper") })
	if i < 0 {
		t.Fatalf("no value of qasper among %d", len(cells))
	}
	f, err := a.Rest(t.Context(), run, cells[i])
	if err != nil || len(f.Problems) > 0 {
		t.Fatal(err, f.Problems)
	}
	var stages []string
	for _, c := range f.Chain {
		stages = append(stages, c.Stage)
	}
	for _, want := range []string{"documents", "instructions", "tokens", "batches", "checkpoint", "questions", "predictions", "judgments", "scores"} {
		if !slices.Contains(stages, want) {
			t.Errorf("the value rests on %v, without %s", stages, want)
		}
	}
	if f.Documents[datasets.SplitTrain] == 0 {
		t.Errorf("documents %v", f.Documents)
	}

	traces, err := a.Trace(t.Context(), run, nil, nil)
	if err != nil || len(traces[0].Problems) > 0 {
		t.Fatal(err, traces[0].Problems)
	}
	for name, trained := range map[string]bool{"a document that was trained on bears on the benchmark": true, "one that was held out does not": false} {
		t.Run(name, func(t *testing.T) {
			one := traces[0]
			k := slices.IndexFunc(one.Documents, func(d DocumentTrace) bool {
				return slices.ContainsFunc(d.Instances, func(i InstanceTrace) bool { return len(i.Steps) > 0 }) == trained && len(d.Instances) > 0 &&
					(trained || len(d.Instances[0].Scores) > 0)
			})
			if k < 0 {
				t.Fatal("there is no such document")
			}
			one.Documents = one.Documents[k : k+1]
			leads := LeadsTo(run, study, []CellTrace{one})
			found := slices.ContainsFunc(leads, func(c TableCell) bool { return c.Table == "benchmarks" })
			counted := slices.ContainsFunc(leads, func(c TableCell) bool { return c.Table == "documents" })
			if found != trained || !counted {
				t.Errorf("bears on the benchmark: %v, on the counts: %v", found, counted)
			}
		})
	}
}

func TestABenchmarksSampleIsFollowedFromQuestionToScore(t *testing.T) {
	p := newTiny(t)
	run, _ := p.benchmarkedRun()
	a := &Activities{Store: p.Store}
	found, problems, err := a.Samples(t.Context(), run, nil, "a")
	if err != nil || len(problems) > 0 || len(found["c"]) != 1 {
		t.Fatal(err, problems, found)
	}
	s := found["c"][0]
	if s.Dataset != "qasper" || len(s.Asked) != 1 || len(s.Answered) != 1 || len(s.Judgments) == 0 || len(s.Values) == 0 || s.Inputs["questions"].Stage != "questions" {
		t.Errorf("%+v", s)
	}
	if found, _, err := a.Samples(t.Context(), run, nil, "none"); err != nil || len(found) > 0 {
		t.Error(err, found)
	}
	if err := p.Store.Backend().Delete(t.Context(), mustBlobKey(t, p.output(s.Inputs["predictions"], answersFile))); err != nil {
		t.Fatal(err)
	}
	found, problems, err = a.Samples(t.Context(), run, nil, "a")
	if err != nil || len(problems) != 1 || len(found["c"]) != 1 || len(found["c"][0].Values) == 0 {
		t.Error("with the answers lost, the scores are still told:", err, problems, found)
	}
}

func mustBlobKey(t *testing.T, b artifact.Blob) string {
	t.Helper()
	key, err := b.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
