package activities

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// Two models whose answers are equal lead to the same judgments, scores and tables. The second run's report must not name the first's model.
func TestARunsReportNamesWhoAnsweredInThatRun(t *testing.T) {
	p := newTiny(t)
	s := newService(t, func(string) string { return "nine" })
	base, questions, _, _, _ := p.longBench(write(t, smallLongBench()), nil)
	checkpoint, err := p.Run(t.Context(), p.training(base, nil))
	if err != nil {
		t.Fatal(err)
	}
	ours := p.make("predictions", datasets.PredictionsStageParams{PredictionsParams: datasets.PredictionsParams{MaxInstances: 2}, Template: "longalign", MaxLength: 1024},
		refs{"checkpoint": checkpoint, "instructions": base.instructions})
	plain := p.make("scores", datasets.ScoresParams{}, refs{"predictions": ours})
	const role = datasets.BenchmarkLongBench
	runBy := func(model string) (*artifact.RunRecord, artifact.Ref) {
		predictions := p.make("predictions", datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: role, Endpoint: s.endpoint(model)}}, refs{"questions": questions})
		judgments := p.make("judgments", datasets.JudgmentsParams{Benchmark: role, Judge: "j"}, refs{"questions": questions, "predictions": predictions})
		scores := p.make("scores", scoreParams(role, smallDatasets...), refs{"questions": questions, "predictions": predictions, "judgments": judgments})
		tables := p.make("tables", TablesParams{Params: reports.Params{Kind: reports.KindPaper}, Name: "s", Buckets: []int{8}, Cells: []TablesCell{{Name: "c", Method: "packing", Loss: datasets.LossLongAlign}}},
			refs{"documents": base.documents, "instructions": base.instructions, "tokens": base.tokens, "batches/c": base.batches, "checkpoint/c": checkpoint, "scores/c": plain, BenchmarkRole("c", role): scores})
		run := &artifact.RunRecord{ID: "run-" + model, Cells: []string{"c"}, Tables: &tables}
		for _, ref := range []artifact.Ref{base.documents, base.tokenizer, base.instructions, base.tokens, base.batches, base.base, checkpoint, ours, plain, questions, predictions, judgments, scores} {
			run.Stages = append(run.Stages, artifact.StageCall{Cell: "c", Stage: ref.Stage, Ref: ref})
		}
		return run, predictions
	}
	first, by1 := runBy("m1")
	second, by2 := runBy("m2")
	if by1 == by2 || *first.Tables != *second.Tables {
		t.Fatalf("the answers are %s and %s, the tables %s and %s; want two answers and one table", by1, by2, first.Tables, second.Tables)
	}
	for run, want := range map[*artifact.RunRecord][2]artifact.Ref{first: {by1, by2}, second: {by2, by1}} {
		study, err := ReadStudy(t.Context(), p.Store, *run.Tables, run)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string(nil), study.Problems); diff != "" {
			t.Error(diff)
		}
		var inputs []artifact.Ref
		for _, u := range study.Stages {
			if u.Manifest.Stage == "judgments" || u.Manifest.Stage == "scores" && len(u.Manifest.Inputs) > 1 {
				inputs = append(inputs, u.Manifest.Inputs["predictions"])
			}
		}
		has := func(ref artifact.Ref) bool {
			return slices.ContainsFunc(study.Stages, func(u reports.StageUse) bool { return u.Manifest.Ref() == ref })
		}
		if !has(want[0]) || has(want[1]) || !slices.Equal(inputs, []artifact.Ref{want[0], want[0]}) {
			t.Errorf("%s rests on its own answers: %v, on the other's: %v; judged and scored were %v", run.ID, has(want[0]), has(want[1]), inputs)
		}
		i := slices.IndexFunc(TableCells(study), func(c TableCell) bool { return c.Table == "benchmarks" })
		f, err := (&Activities{Store: p.Store}).Rest(t.Context(), run, TableCells(study)[i])
		if err != nil || !slices.ContainsFunc(f.Chain, func(c TraceStage) bool { return c.Ref == want[0] }) || slices.ContainsFunc(f.Chain, func(c TraceStage) bool { return c.Ref == want[1] }) {
			t.Errorf("%s: a value rests on %+v, %v", run.ID, f.Chain, err)
		}
	}
}

// Two cells of one run whose answers are equal share judgments and scores. What is told of a cell must lead to its own model all the same.
func TestCellsThatShareScoresKeepTheirOwnWay(t *testing.T) {
	p := newTiny(t)
	s := newService(t, func(string) string { return "nine" })
	base, questions, _, _, _ := p.longBench(write(t, smallLongBench()), nil)
	const role = datasets.BenchmarkLongBench
	run := &artifact.RunRecord{ID: "run", Cells: []string{"a", "b"}}
	in := refs{"documents": base.documents, "instructions": base.instructions, "tokens": base.tokens}
	answers := map[string]artifact.Ref{}
	params := TablesParams{Params: reports.Params{Kind: reports.KindPaper}, Name: "s", Buckets: []int{8}}
	for _, cell := range run.Cells {
		checkpoint, err := p.Run(t.Context(), p.training(base, nil))
		if err != nil {
			t.Fatal(err)
		}
		answers[cell] = p.make("predictions", datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: role, Endpoint: s.endpoint("m-" + cell)}}, refs{"questions": questions})
		judgments := p.make("judgments", datasets.JudgmentsParams{Benchmark: role, Judge: "j"}, refs{"questions": questions, "predictions": answers[cell]})
		scores := p.make("scores", scoreParams(role, smallDatasets...), refs{"questions": questions, "predictions": answers[cell], "judgments": judgments})
		params.Cells = append(params.Cells, TablesCell{Name: cell, Method: cell, Loss: datasets.LossLongAlign, NoDocuments: true})
		in["batches/"+cell], in["checkpoint/"+cell], in[BenchmarkRole(cell, role)] = base.batches, checkpoint, scores
		for _, ref := range []artifact.Ref{base.documents, base.tokenizer, base.instructions, base.tokens, base.batches, base.base, checkpoint, questions, answers[cell], judgments, scores} {
			run.Stages = append(run.Stages, artifact.StageCall{Cell: cell, Stage: ref.Stage, Ref: ref})
		}
	}
	if answers["a"] == answers["b"] || in[BenchmarkRole("a", role)] != in[BenchmarkRole("b", role)] {
		t.Fatal("want two answers and one score")
	}
	tables := p.make("tables", params, in)
	run.Tables = &tables
	study, err := ReadStudy(t.Context(), p.Store, tables, run)
	if err != nil || len(study.Problems) > 0 {
		t.Fatal(study, err)
	}
	for cell, ref := range answers {
		if !slices.ContainsFunc(study.Stages, func(u reports.StageUse) bool {
			return u.Manifest.Ref() == ref && slices.Equal(u.Cells, []string{cell})
		}) {
			t.Errorf("the report does not say that %s was answered by %s", cell, ref)
		}
	}
	i := slices.IndexFunc(TableCells(study), func(c TableCell) bool { return c.Table == "benchmarks" })
	f, err := (&Activities{Store: p.Store}).Rest(t.Context(), run, TableCells(study)[i])
	if err != nil {
		t.Fatal(err)
	}
	for cell, ref := range answers {
		if !slices.ContainsFunc(f.Chain, func(c TraceStage) bool { return c.Ref == ref }) {
			t.Errorf("the way of %s is not among %+v", cell, f.Chain)
		}
	}
	traces, err := (&Activities{Store: p.Store}).Trace(t.Context(), run, nil, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range traces {
		for _, c := range tr.Chain {
			if c.Stage == "judgments" && c.Inputs["predictions"] != answers[tr.Cell] {
				t.Errorf("%s was judged by %s, want %s", tr.Cell, c.Inputs["predictions"], answers[tr.Cell])
			}
		}
	}
}

func TestScoresSayWhoAnsweredAndWhoJudged(t *testing.T) {
	p := newTiny(t)
	s := newService(t, func(string) string { return "[[7]]" })
	q := p.make("questions", datasets.QuestionsParams{Benchmark: datasets.BenchmarkMTBench, Path: write(t, smallMTBench())}, nil)
	made := p.make("predictions", datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: datasets.BenchmarkMTBench, Endpoint: s.endpoint("m")}}, refs{"questions": q})
	seen := map[string]bool{}
	for _, judge := range []string{"judge-20260131", "judge-20260228"} {
		judged := p.make("judgments", datasets.JudgmentsParams{Benchmark: datasets.BenchmarkMTBench, Endpoint: s.endpoint(judge)}, refs{"questions": q, "predictions": made})
		params := scoreParams(datasets.BenchmarkMTBench)
		params.Benchmark.AnsweredBy = "m"
		ref := p.make("scores", params, refs{"questions": q, "predictions": made, "judgments": judged})
		if got := p.scores(ref); got.AnsweredBy != "m" || got.JudgedBy != judge {
			t.Errorf("answered by %q, judged by %q; want m and %s", got.AnsweredBy, got.JudgedBy, judge)
		}
		m, err := p.Store.Current(t.Context(), ref)
		if err != nil || seen[m.Digest()] {
			t.Errorf("equal ratings of two judges are one result, under which the second's tables name the first: %v", err)
		}
		seen[m.Digest()] = true
	}
}
