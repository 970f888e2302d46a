package activities

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/reports/paper"
)

func smallChat() map[string]string {
	example := `{"answer":"nine","score":9}`
	three := "[" + strings.Join([]string{example, example, example}, ",") + "]"
	return map[string]string{
		longbenchchat.CasesFile: `[{"idx":1,"prompt":"The queue is nine long. How long is it?","query":"How long is it?","answer":"nine"},
			{"idx":2,"prompt":"钟很慢。钟怎么样？","query":"钟怎么样？","answer":"很慢"}]`,
		longbenchchat.ExamplesFile: "[" + three + "," + three + "]",
		longbenchchat.PromptFile:   "Q {} R {} A {} {} B {} {} C {} {} rate {} as [[n]]",
	}
}

func smallMTBench() map[string]string {
	var prompts strings.Builder
	for _, name := range []string{"single-v1", "single-math-v1"} {
		fmt.Fprintf(&prompts, `{"name":%q,"type":"single","system_prompt":"s","prompt_template":"{question} {answer}","output_format":"[[rating]]"}`+"\n", name)
		fmt.Fprintf(&prompts, `{"name":%q,"type":"single","system_prompt":"s","prompt_template":"{question_1} {answer_1} {question_2} {answer_2}","output_format":"[[rating]]"}`+"\n", name+"-multi-turn")
	}
	return map[string]string{
		mtQuestions:  `{"question_id":81,"category":"writing","turns":["Write.","Again."]}` + "\n" + `{"question_id":111,"category":"math","turns":["2+2?","And 3?"]}` + "\n",
		mtReferences: `{"question_id":111,"choices":[{"turns":["4","7"]}]}` + "\n",
		mtPrompts:    prompts.String(),
	}
}

func TestBenchmarksPrintBesideThePublishedValues(t *testing.T) {
	p := newTiny(t)
	s := newService(t, func(string) string { return "[[7]]" })
	dir := write(t, smallLongBench())
	base, questions, predictions, _, longBench := p.longBench(dir, nil)
	checkpoint, err := p.Run(t.Context(), p.training(base, nil))
	if err != nil {
		t.Fatal(err)
	}
	ours := p.make("predictions", datasets.PredictionsStageParams{PredictionsParams: datasets.PredictionsParams{MaxInstances: 2}, Template: "longalign", MaxLength: 1024},
		refs{"checkpoint": checkpoint, "instructions": base.instructions})
	in := refs{
		"documents": base.documents, "instructions": base.instructions, "tokens": base.tokens, "batches/c": base.batches, "checkpoint/c": checkpoint,
		"scores/c": p.make("scores", datasets.ScoresParams{}, refs{"predictions": ours}),
		BenchmarkRole("c", datasets.BenchmarkLongBench): longBench,
	}
	_, _ = questions, predictions
	for benchmark, files := range map[string]map[string]string{datasets.BenchmarkLongBenchChat: smallChat(), datasets.BenchmarkMTBench: smallMTBench()} {
		q := p.make("questions", datasets.QuestionsParams{Benchmark: benchmark, Path: write(t, files)}, nil)
		answer := datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: benchmark, Endpoint: s.endpoint("m")}}
		made := p.make("predictions", answer, refs{"questions": q})
		judged := p.make("judgments", datasets.JudgmentsParams{Benchmark: benchmark, Endpoint: s.endpoint("judge-20260131")}, refs{"questions": q, "predictions": made})
		in[BenchmarkRole("c", benchmark)] = p.make("scores", scoreParams(benchmark), refs{"questions": q, "predictions": made, "judgments": judged})
	}
	book := `{"id":3,"context":"The clock is slow.","input":"What is slow?","answer":["the clock"]}` + "\n"
	q := p.make("questions", datasets.QuestionsParams{Benchmark: datasets.BenchmarkEnQA, Path: write(t, map[string]string{"longbook_qa_eng.jsonl": book})}, nil)
	clock := newService(t, func(string) string { return "It is the clock." })
	made := p.make("predictions", datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: datasets.BenchmarkEnQA, Endpoint: clock.endpoint("c")}}, refs{"questions": q})
	in[BenchmarkRole("c", datasets.BenchmarkEnQA)] = p.make("scores", scoreParams(datasets.BenchmarkEnQA), refs{"questions": q, "predictions": made})
	results := filepath.Join(write(t, map[string]string{"r.json": `{"lm_eval_version":"0.4.9","results":{"arc_challenge":{"acc_norm,none":0.489,"acc_norm_stderr,none":0.01}},` +
		`"n-shot":{"arc_challenge":0},"n-samples":{"arc_challenge":{"original":1172,"effective":1172}}}`}), "r.json")
	imported := scoreParams(datasets.BenchmarkShortTasks)
	imported.Benchmark.Results = results
	in[BenchmarkRole("c", datasets.BenchmarkShortTasks)] = p.make("scores", imported, nil)

	tables := p.make("tables", TablesParams{Params: reports.Params{Kind: reports.KindPaper, Dataset: "LongAlign-10k"}, Name: "s", Buckets: []int{8},
		Methods: []TablesMethod{{Name: "packing", Published: paper.Weighting}},
		Cells:   []TablesCell{{Name: "c", Method: "packing", Model: paper.Llama7B, Loss: datasets.LossLongAlign}}}, in)
	study, err := ReadStudy(t.Context(), p.Store, tables, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := reports.PaperTables(study)
	training, err := reports.Find(all, "training")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		value float64
		marks []string
	}{
		paper.LongBenchChat: {7, nil}, paper.MTBench: {7, nil}, paper.ARC: {48.9, []string{reports.NoteImported, reports.NoteShots}},
	}
	for _, row := range training.Rows {
		if row.Section != paper.Llama7B || row.Cells[0].Text != paper.Weighting {
			continue
		}
		for i, c := range training.Columns {
			cell := row.Cells[i]
			if w, ok := want[c.Name]; ok {
				delete(want, c.Name)
				if cell.Value < w.value-1e-9 || cell.Value > w.value+1e-9 || !slices.Equal(cell.Marks, w.marks) || cell.Published == nil || len(cell.Sources) != 1 {
					t.Errorf("%s: %+v", c.Name, cell)
				}
			}
			if c.Name == paper.SingleDocQA && (!slices.Contains(cell.Marks, reports.NoteOffline) || !cell.Incomplete) {
				t.Errorf("%s by the offline judge on two samples: %+v", c.Name, cell)
			}
			if c.Name == paper.MMLU && cell.HasValue() {
				t.Errorf("MMLU was not measured: %+v", cell)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	leaderboard, err := reports.Find(all, "leaderboard")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range leaderboard.Rows {
		if row.Cells[0].Text == "En.QA" && row.Cells[2].Value != 100 {
			t.Errorf("En.QA SubEM: %+v", row.Cells[2])
		}
		if row.Cells[0].Text == "Average Overall" && (row.Cells[2].Value != 100 || !row.Cells[2].Incomplete) {
			t.Errorf("the average over one of five: %+v", row.Cells[2])
		}
	}
	if len(study.Stages) == 0 || !slices.ContainsFunc(study.Stages, func(u reports.StageUse) bool { return u.Manifest.Stage == "judgments" }) {
		t.Error("the provenance lacks the judgments")
	}
	if _, err := reports.RenderReport(study); err != nil {
		t.Error(err)
	}
}

func TestMTBenchHoldsConversationsOfTwoTurns(t *testing.T) {
	p := newTiny(t)
	base := p.upToBatches()
	q := p.make("questions", datasets.QuestionsParams{Benchmark: datasets.BenchmarkMTBench, Path: write(t, smallMTBench())}, nil)
	params := answerParams(datasets.BenchmarkMTBench)
	params.MaxLength = 0
	// The model's window of 1,024 has no room beside answers of as many tokens.
	made := p.make("predictions", params, refs{"questions": q, "checkpoint": base.base})
	for _, a := range p.answers(made) {
		if !strings.Contains(a.Failed, "nothing is left for the question") {
			t.Errorf("%+v", a)
		}
	}
	offline := p.make("judgments", datasets.JudgmentsParams{Benchmark: datasets.BenchmarkMTBench, Judge: datasets.OfflineJudge}, refs{"questions": q, "predictions": made})
	set := p.scores(p.make("scores", scoreParams(datasets.BenchmarkMTBench), refs{"questions": q, "predictions": made, "judgments": offline})).Metrics[paper.MTBench]
	wide := modelParams
	wide.MaxPositionEmbeddings = 2600
	model := p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &wide}, refs{"tokenizer": base.tokenizer})
	for _, a := range p.answers(p.make("predictions", params, refs{"questions": q, "checkpoint": model})) {
		if a.Failed != "" || len(a.Texts) != 2 || len(a.Prompts) != 2 || a.Prompts[1].Tokens <= a.Prompts[0].Tokens {
			t.Errorf("%s: failed %q, %d texts, prompts %v", a.ID, a.Failed, len(a.Texts), a.Prompts)
		}
	}
	if len(set.Samples) != 4 || set.Wanted != 160 || slices.ContainsFunc(set.Samples, func(s reports.Sample) bool { return !s.Failed }) {
		t.Errorf("%+v", set)
	}
}

// MT-Bench's own files have references for one turn and a blank for the other: with nothing to compare with, the offline judge fails, and
// does not give the lowest rating.
func TestTheOfflineJudgeRatesNothingWithoutAReference(t *testing.T) {
	p := newTiny(t)
	files := smallMTBench()
	files[mtQuestions] += `{"question_id":131,"category":"extraction","turns":["Count.","Again."],"reference":["nine",""]}` + "\n"
	q := p.make("questions", datasets.QuestionsParams{Benchmark: datasets.BenchmarkMTBench, Path: write(t, files)}, nil)
	s := newService(t, func(string) string { return "nine" })
	made := p.make("predictions", datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: datasets.BenchmarkMTBench, Endpoint: s.endpoint("m")}}, refs{"questions": q})
	offline := p.make("judgments", datasets.JudgmentsParams{Benchmark: datasets.BenchmarkMTBench, Judge: datasets.OfflineJudge}, refs{"questions": q, "predictions": made})
	set := p.scores(p.make("scores", scoreParams(datasets.BenchmarkMTBench), refs{"questions": q, "predictions": made, "judgments": offline})).Metrics[paper.MTBench]
	rated := map[string]float64{}
	for _, x := range set.Samples {
		if !x.Failed {
			rated[x.ID] = x.Value
		}
	}
	if want := map[string]float64{"mt-bench/111/turn-1": 1, "mt-bench/111/turn-2": 1, "mt-bench/131/turn-1": 10}; !maps.Equal(want, rated) {
		t.Errorf("rated %v, want %v", rated, want)
	}
}
