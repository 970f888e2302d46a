package activities

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/shorttasks"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/reports/paper"
)

// TestMain lets the test program stand in for lm-evaluation-harness when it is started under its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == harnessProgram {
		if err := standInHarness(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The question that the stand-in asks about, and two answers to it.
const harnessContext = "Question: How long is the queue?\nAnswer:"

var harnessChoices = []string{" nine", " the river is wide"}

// argsFile is where the stand-in notes what it was called with.
const argsFile = "HARNESS_ARGS"

// standInHarness does what lm-evaluation-harness does with its model local-completions: it encodes context and answer with the tokenizer it
// was pointed to, asks for the log-probabilities of the echoed tokens, sums those after the context, and writes a results file of the
// harness's shape and name.
func standInHarness(args []string) error {
	flags := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	model := map[string]string{}
	for _, pair := range strings.Split(flags["--model_args"], ",") {
		name, value, _ := strings.Cut(pair, "=")
		model[name] = value
	}
	task := flags["--tasks"]
	if task == os.Getenv("FAIL_TASK") {
		return fmt.Errorf("no dataset for %s", task)
	}
	noted, err := os.OpenFile(os.Getenv(argsFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer noted.Close()
	if _, err := fmt.Fprintf(noted, "%s\n", mustMarshal(args)); err != nil {
		return err
	}
	tok, err := tokenizer.Load(model["tokenizer"])
	if err != nil {
		return err
	}
	var sums []float64
	for _, choice := range harnessChoices {
		sum, err := likelihood(tok, model, choice)
		if err != nil {
			return err
		}
		sums = append(sums, sum)
	}
	values := map[string]any{"alias": task, "acc,none": 0.25, "acc_stderr,none": 0.01, "acc_norm,none": 0.5, "acc_norm_stderr,none": 0.02}
	shots, samples := map[string]any{task: json.RawMessage(flags["--num_fewshot"])}, map[string]any{task: map[string]int{"original": 1172, "effective": 1172}}
	results, groups := map[string]any{task: values}, map[string]any{}
	subtasks := []string{}
	if task == "mmlu" { // a group: its numbers are those of its 57 tasks
		groups[task] = values
		shots, samples = map[string]any{}, map[string]any{}
		for i := range 57 {
			name := fmt.Sprintf("mmlu_subject_%d", i)
			subtasks = append(subtasks, name)
			results[name], shots[name], samples[name] = values, json.RawMessage(flags["--num_fewshot"]), map[string]int{"original": 100, "effective": 100}
		}
	}
	dir := filepath.Join(flags["--output_path"], model["model"])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b := mustMarshal(map[string]any{
		"results": results, "groups": groups, "group_subtasks": map[string]any{task: subtasks}, "configs": map[string]any{}, "versions": map[string]any{task: 1},
		"n-shot": shots, "higher_is_better": map[string]any{}, "n-samples": samples,
		"config":   map[string]any{"model": flags["--model"], "model_args": flags["--model_args"], "likelihoods": sums},
		"git_hash": "none", "date": 1769817600.5, "lm_eval_version": "0.4.9.1", "task_hashes": map[string]any{},
		"model_source": flags["--model"], "model_name": model["model"], "total_evaluation_time_seconds": "1.5",
	})
	return os.WriteFile(filepath.Join(dir, "results_2026-01-31T00-00-00.123456.json"), b, 0o600)
}

// likelihood is what the harness takes for the log-likelihood of a choice.
func likelihood(tok *tokenizer.Tokenizer, model map[string]string, choice string) (float64, error) {
	begin := model["add_bos_token"] == "True"
	whole, context := tok.Encode(harnessContext+choice, begin), tok.Encode(harnessContext, begin)
	body := mustMarshal(map[string]any{"model": model["model"], "prompt": [][]int32{whole}, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true})
	req, err := http.NewRequest(http.MethodPost, model["base_url"], bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+os.Getenv("OPENAI_API_KEY"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var out struct {
		Choices []struct {
			LogProbs struct {
				Tokens []*float64           `json:"token_logprobs"`
				Top    []map[string]float64 `json:"top_logprobs"`
			} `json:"logprobs"`
		} `json:"choices"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK || len(out.Choices) != 1 {
		return 0, fmt.Errorf("%s answered %s, %w", model["base_url"], resp.Status, err)
	}
	found := out.Choices[0].LogProbs
	if len(found.Tokens) != len(whole)+1 || len(found.Top) != len(found.Tokens) {
		return 0, fmt.Errorf("%d log-probabilities of %d tokens and one more", len(found.Tokens), len(whole))
	}
	sum := 0.0
	for _, lp := range found.Tokens[len(context) : len(found.Tokens)-1] {
		sum += *lp
	}
	return sum, nil
}

func TestTheHarnessRunsAsAChild(t *testing.T) {
	p := newTiny(t)
	base := p.upToBatches()
	params := datasets.PredictionsStageParams{Template: "longalign", Answer: &datasets.AnswerParams{Benchmark: datasets.BenchmarkShortTasks}}
	call := p.call("predictions", params, refs{"checkpoint": base.base})
	t.Setenv("PATH", t.TempDir())
	_, err := p.Run(t.Context(), call)
	wantType(t, err, BadConfig, "there is no program lm_eval")

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, harnessProgram)); err != nil {
		t.Skip(err)
	}
	noted := filepath.Join(bin, "args.jsonl")
	t.Setenv("PATH", bin)
	t.Setenv(argsFile, noted)
	t.Setenv("FAIL_TASK", "hellaswag")
	_, err = p.Run(t.Context(), call)
	wantType(t, err, BadData, "no dataset for hellaswag")
	t.Setenv("FAIL_TASK", "")
	if err := os.Remove(noted); err != nil {
		t.Fatal(err)
	}
	made, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	compareArguments(t, noted)

	// What the harness reads from our server is what the model says.
	j := &job{a: p.Activities, call: Call{Inputs: refs{"checkpoint": base.base}}, dir: t.TempDir()}
	dir, err := j.fetch(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := openHost(t.Context(), "host")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	model, err := llama.Load(dir, dev, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Config struct{ Likelihoods []float64 }
	}
	if err := p.Store.ReadJSON(t.Context(), p.output(made, harnessFile(shorttasks.Tasks()[0])), &file); err != nil {
		t.Fatal(err)
	}
	for i, choice := range harnessChoices {
		context := tok.Encode(harnessContext, true)
		want, _, err := model.LogProb(context, tok.Encode(harnessContext+choice, true)[len(context):])
		if err != nil {
			t.Fatal(err)
		}
		if got := file.Config.Likelihoods[i]; math.Abs(got-want) > 1e-5 { // the engine feeds in blocks, LogProb at once
			t.Errorf("%q: log-likelihood %v, the model's is %v", choice, got, want)
		}
	}

	s := p.scores(p.make("scores", scoreParams(datasets.BenchmarkShortTasks), refs{"predictions": made}))
	arc, mmlu := s.Metrics[paper.ARC], s.Metrics[paper.MMLU]
	if arc.Mean != 50 || arc.N != 1172 || mmlu.Mean != 25 || mmlu.N != 5700 || len(s.Metrics) != 4 {
		t.Errorf("%+v", s.Metrics)
	}
	for name, set := range s.Metrics {
		if diff := cmp.Diff([]string{reports.NoteImported}, set.Marks); diff != "" || set.Low >= set.Mean || set.High <= set.Mean {
			t.Errorf("%s: from %v to %v, %s", name, set.Low, set.High, diff)
		}
	}
}

// compareArguments compares what the program was called with, places apart, with what lm-evaluation-harness 0.4 documents.
func compareArguments(t *testing.T, noted string) {
	t.Helper()
	raw, err := os.ReadFile(noted)
	if err != nil {
		t.Fatal(err)
	}
	places := regexp.MustCompile(`(127\.0\.0\.1:)\d+|(tokenizer=)[^,]+|[^ "]*/(harness-\w+)`)
	got := places.ReplaceAllString(string(raw), "$1$2$3")
	var want strings.Builder
	for task, shots := range map[string]string{"arc_challenge": "25", "hellaswag": "10", "truthfulqa_mc2": "0", "mmlu": "5"} {
		line := mustMarshal([]string{"--model", "local-completions", "--model_args",
			"model=checkpoint,base_url=http://127.0.0.1:/v1/completions,tokenizer_backend=huggingface,tokenizer=,tokenized_requests=True,add_bos_token=True,max_length=1024,num_concurrent=1",
			"--tasks", task, "--num_fewshot", shots, "--batch_size", "1", "--output_path", "harness-" + task})
		if !strings.Contains(got, string(line)+"\n") {
			t.Errorf("it was not called with\n%s\nbut with\n%s", line, got)
		}
		fmt.Fprintf(&want, "%s\n", line)
	}
	if len(got) != want.Len() {
		t.Errorf("called with\n%s", got)
	}
}

func TestResultsOfAnUnknownHarnessAreRefused(t *testing.T) {
	p := newTiny(t)
	for name, tt := range map[string]struct{ file, says string }{
		"a version to come": {`{"lm_eval_version":"9.9","results":{}}`, `"9.9"`},
		"an old version":    {`{"results":{"hendrycksTest-anatomy":{"acc":0.5}},"versions":{}}`, "does not say which"},
		"another program's": {`{"scores":{}}`, `no "results"`},
		"no JSON":           {`acc: 0.5`, "no results file"},
		"other tasks":       {`{"lm_eval_version":"0.4.9","results":{"gsm8k":{"exact_match,strict-match":0.5}}}`, "none of arc_challenge"},
	} {
		t.Run(name, func(t *testing.T) {
			params := scoreParams(datasets.BenchmarkShortTasks)
			params.Benchmark.Results = filepath.Join(write(t, map[string]string{"r.json": tt.file}), "r.json")
			_, err := p.Run(t.Context(), p.call("scores", params, nil))
			wantType(t, err, BadData, "r.json", tt.says)
		})
	}
}
