package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/workflows"
)

// paperStudyYAML is a study of a tiny model under one of the paper's names, through every benchmark that the paper's tables have columns
// of, on small files in the benchmarks' own layouts.
const paperStudyYAML = `
name: paper-small
documents:
  sources: [{name: packages, path: corpus, format: go}]
  held_out: 0.4
  near_duplicates: -1
tokenizer: {vocab_size: 300}
tokens: {max_length: 768}
model: {name: Llama-2-7B-64k, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 768}
batches: {method: packing, batch_size: 1}
train: {learning_rate: 1e-2, device: host}
predictions: {max_new_tokens: 2, generate: 1, max_instances: 2, device: host}
benchmarks:
  longbench: {path: benchmarks/longbench, datasets: [qasper, musique, gov_report], judge: offline}
  longbench_chat: {path: benchmarks/chat, judge: offline}
  needle: {haystack: benchmarks/essays, lengths: [120, 240], depths: [0, 1], max_new_tokens: 4}
  en_qa: {path: benchmarks/enqa}
  short_tasks: {results: "benchmarks/{method}.json"}
study:
  seeds: [1]
  methods:
    - {name: packing, published: packing, set: {train.loss: pack}}
    - {name: weighted, published: packing+loss weighting}
    - {name: naive, published: naive, set: {batches.method: naive}}
tables:
  kind: paper
  dataset: LongAlign-10k
  marks: [tiny, synthetic]
  resamples: 50
  ratings: {path: benchmarks/ratings.csv, humans: [anna, ben], judges: [judge=gpt-4+few-shot], length: tokens}
`

func writePaperStudy(t *testing.T) {
	t.Helper()
	writeStudy(t, ".")
	row := func(id, dataset, answer string) string {
		return fmt.Sprintf(`{"_id":%q,"input":"How long is the queue?","context":"The queue is %s long.","answers":[%q],"length":5,"dataset":%q,"language":"en","all_classes":null}`+"\n", id, answer, answer, dataset)
	}
	example := `{"answer":"nine","score":9}`
	three := "[" + strings.Join([]string{example, example, example}, ",") + "]"
	for name, text := range map[string]string{
		"study.yaml": paperStudyYAML,
		"benchmarks/longbench/dataset2prompt.json":   `{"qasper":"{context}\n{input}","musique":"{context}\n{input}","gov_report":"{context}"}`,
		"benchmarks/longbench/dataset2maxlen.json":   `{"qasper":3,"musique":3,"gov_report":3}`,
		"benchmarks/longbench/data/qasper.jsonl":     row("a", "qasper", "nine") + row("b", "qasper", "ten"),
		"benchmarks/longbench/data/musique.jsonl":    row("c", "musique", "nine"),
		"benchmarks/longbench/data/gov_report.jsonl": row("d", "gov_report", "nine"),
		"benchmarks/chat/test_cases.json":            `[{"idx":1,"prompt":"The queue is nine long. How long?","query":"How long?","answer":"nine"}]`,
		"benchmarks/chat/few_shots.json":             "[" + three + "]",
		"benchmarks/chat/prompt_fs.txt":              "Q {} R {} A {} {} B {} {} C {} {} rate {} as [[n]]",
		"benchmarks/essays/one.txt":                  strings.Repeat("The harbor is wide and the clock is slow. ", 80),
		"benchmarks/enqa/longbook_qa_eng.jsonl":      `{"id":3,"context":"The clock is slow.","input":"What is slow?","answer":["the clock"]}` + "\n",
		"benchmarks/ratings.csv":                     "anna,ben,judge,tokens\n1,2,1,10\n3,3,4,200\n5,4,5,90\n2,2,3,40\n7,6,8,500\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, method := range []string{"packing", "weighted", "naive"} {
		text := fmt.Sprintf(`{"lm_eval_version":"0.4.9","results":{"arc_challenge":{"acc_norm,none":0.48%d,"acc_norm_stderr,none":0.01}},"n-shot":{"arc_challenge":25},"n-samples":{"arc_challenge":{"original":1172,"effective":1172}}}`, i)
		if err := os.WriteFile("benchmarks/"+method+".json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestThePapersTablesComeFromARun(t *testing.T) {
	r := newRemote(t, workflows.Queues...)
	writePaperStudy(t)
	out, _ := r.do(exitDone, r.local("run", "study.yaml", "--dry-run")...)
	contains(t, "the dry run", out, "questions", "judgments", "takes a model on a device")
	_, progress := r.do(exitIncomplete, r.remote("run", "study.yaml")...)
	contains(t, "two of a benchmark's samples", progress, "lack samples and are not final")
	id := strings.Fields(progress[strings.Index(progress, "\nrun "):])[1]
	var tables []reports.Table
	out, _ = r.do(exitDone, r.local("report", id, "--format", "json")...)
	if err := json.Unmarshal([]byte(out), &tables); err != nil {
		t.Fatal(err)
	}
	cells := map[string]reports.Cell{} // by table, row, column
	for _, table := range tables {
		for _, row := range table.Rows {
			for j, c := range row.Cells {
				cells[strings.Join([]string{table.Name, row.Section, row.Cells[0].Text, table.Columns[j].Name}, "/")] = c
			}
		}
	}
	for place, check := range map[string]func(reports.Cell) bool{
		"judge//judge – people/Spearman":                                func(c reports.Cell) bool { return c.N == 5 && c.Published != nil && *c.Published == 0.844 },
		"judge//judge – people/long third":                              reports.Cell.HasValue,
		"data/ChatGLM3-6B-64k/LongAlign-10k/LongBench-Chat":             func(c reports.Cell) bool { return !c.HasValue() && *c.Published == 6.21 },
		"training/Llama-2-7B-64k/packing/ARC":                           func(c reports.Cell) bool { return c.Value == 48 && c.N == 1172 && *c.Published == 48.1 },
		"training/Llama-2-7B-64k/naive/S-Doc QA":                        func(c reports.Cell) bool { return c.Incomplete && c.Published != nil && len(c.Sources) == 1 },
		"training/Llama-2-7B-64k/packing+loss weighting/LongBench-Chat": func(c reports.Cell) bool { return c.Published != nil && len(c.Marks)+c.Failed > 0 },
		"scaling/Llama-2-13B-64k/sorted/Summ":                           func(c reports.Cell) bool { return !c.HasValue() && *c.Published == 45.3 },
		"leaderboard//En.QA/packing · Llama-2-7B-64k":                   func(c reports.Cell) bool { return len(c.Sources) == 1 && *c.Published == 32.19 },
		"benchmarks/LongBench, %/qasper/packing":                        func(c reports.Cell) bool { return len(c.Sources) == 1 },
		"documents/kept/packages/held out":                              func(c reports.Cell) bool { return c.Value > 0 },
		"spending/computed/answers to longbench/results":                func(c reports.Cell) bool { return c.Value == 3 },
		"spending/computed/judgments by rules/results":                  func(c reports.Cell) bool { return c.Value > 0 },
		"training/Llama-2-7B-64k/sorted/" + "HellaSwag":                 func(c reports.Cell) bool { return !c.HasValue() && *c.Published == 74.8 },
	} {
		if c, ok := cells[place]; !ok || !check(c) {
			t.Errorf("%s: there: %v, %+v", place, ok, c)
		}
	}
	// All that came from files of this machine follows from the store: the ratings without their file, the harness's results by cell.
	out, _ = r.do(exitDone, r.local("verify", id, "--level", "derived")...)
	if strings.Contains(out, "no longer the same") {
		t.Errorf("results are skipped though nothing changed:\n%s", out)
	}
	if err := os.Rename("benchmarks/ratings.csv", "benchmarks/gone.csv"); err != nil {
		t.Fatal(err)
	}
	out, _ = r.do(exitDone, r.local("verify", id, "--level", "derived", "--json")...)
	var verified activities.Verification
	if err := json.Unmarshal([]byte(out), &verified); err != nil {
		t.Fatal(err)
	}
	for _, f := range verified.Unchecked {
		if f.Ref.Stage == "tables" {
			t.Errorf("without the ratings' file, the tables are not checked: %s", f.Problem)
		}
	}
	export := filepath.Join(t.TempDir(), "export")
	r.do(exitDone, r.local("export", id, "--out", export)...)
	_, blob := storedManifest(t, export, "tables", "study.json")
	remove(t, blob)
	out, _ = r.do(exitIncomplete, "report", id, "--store", export, "--table", "judge")
	contains(t, "without ratings' file and study", out, "judge – people", "5")
	dir := filepath.Join(t.TempDir(), "report")
	r.do(exitDone, r.local("report", id, "--out", dir)...)
	for _, name := range []string{"overview", "leaderboard", "lengths", "time", "curves", "needle-packing", "needle-weighted", "needle-naive"} {
		for _, ext := range []string{".svg", ".pdf", ".png"} {
			if info, err := os.Stat(filepath.Join(dir, "figures", name+ext)); err != nil || info.Size() == 0 {
				t.Errorf("figure %s%s: %v", name, ext, err)
			}
		}
	}
	if p, err := os.ReadFile(filepath.Join(dir, "problems.txt")); err == nil {
		t.Errorf("problems: %s", p)
	}
	if keep := os.Getenv("PAPER_REPORT"); keep != "" {
		if err := os.CopyFS(keep, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	}
	r.do(exitDone, r.local("verify", id)...)
	r.do(exitDone, r.local("verify", id, "--level", "derived")...)
	var foundations []activities.Foundation
	out, _ = r.do(exitDone, r.local("lineage", id, "--table", "training", "--row", "Llama-2-7B-64k: naive", "--column", "S-Doc QA", "--json")...)
	if err := json.Unmarshal([]byte(out), &foundations); err != nil || len(foundations) != 1 || foundations[0].Documents["train"] == 0 {
		t.Errorf("%v: %s", err, out)
	}
	out, _ = r.do(exitDone, r.local("lineage", id, "--sample", "qasper/a")...)
	contains(t, "a sample", out, "naive/seed=1, longbench qasper, sample qasper/a", "asked     The queue is nine long.", "score")

	// The ratings' file is an input: with other ratings the tables are others, everything else is reused.
	if err := os.WriteFile("benchmarks/ratings.csv", []byte("anna,ben,judge,tokens\n1,2,1,10\n3,3,9,200\n5,4,,90\n2,2,3,40\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = r.do(exitIncomplete, r.remote("run", "study.yaml")...)
	contains(t, "other ratings", out, "judge – people")
	out, _ = r.do(exitDone, r.local("explain", id)...)
	contains(t, "explain", out, " 1 misses (made)", "inputs.ratings", "files outside of the store have changed")
	_, stderr := r.do(exitFailed, r.remote("run", "study.yaml", "--set", "tables.ratings.humans=[carl]")...)
	contains(t, "a column that is not there", stderr, "carl", "ratings")
	_, stderr = r.do(exitUsage, r.remote("run", "study.yaml", "--set", "tables.ratings.judges=[judge=nobody]")...)
	contains(t, "a judge that is not published", stderr, "nobody", "gpt-4")
}
