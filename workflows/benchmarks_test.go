package workflows

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
)

// benchmarked is the tiny study with benchmarks, judged by an endpoint and offline.
const benchmarked = tinySpec + `
endpoints:
  judge: {base_url: http://localhost:1/v1, model: judge-2026-01-31}
benchmarks:
  seed: 4
  longbench: {path: /data/longbench, datasets: [qasper, gov_report], judge: judge}
  needle: {haystack: /data/essays, lengths: [100], depths: [0.5], judge: offline}
  en_qa: {path: /data/infinitebench}
  short_tasks: {results: "/data/{method}-{seed}.json"}
`

func TestBenchmarksShareTheirQuestionsAndReachTheTables(t *testing.T) {
	w := newWorld(t)
	var tables activities.Call
	results := map[string]bool{}
	queues := map[string]bool{}
	w.fail = func(call activities.Call) error {
		switch call.Stage {
		case "tables":
			tables = call
		case "predictions", "judgments":
			queues[call.Stage+" on "+QueueOf(activities.ActivityName(call))] = true
		case "scores":
			var p datasets.ScoresStageParams
			if err := json.Unmarshal(call.Params, &p); err != nil {
				return err
			}
			if p.Benchmark != nil && p.Benchmark.Results != "" {
				results[p.Benchmark.Results] = true
			}
		}
		return nil
	}
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, benchmarked)})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	// Two cells. Each has held-out instructions, LongBench, needles and En.QA to answer; two judges; five kinds of scores.
	for stage, want := range map[string]int{"questions": 3, "predictions": 8, "judgments": 4, "scores": 10, "tables": 1} {
		if got := w.made[stage]; got != want {
			t.Errorf("%d %s were made, want %d", got, stage, want)
		}
	}
	for _, cell := range []string{"packing/seed=1", "naive/seed=1"} {
		for _, b := range []string{"longbench", "needle", "en_qa", "short_tasks"} {
			if tables.Inputs[activities.BenchmarkRole(cell, b)].Stage != "scores" {
				t.Errorf("the tables lack %s of %s", b, cell)
			}
		}
	}
	if diff := cmp.Diff(map[string]bool{"/data/packing-1.json": true, "/data/naive-1.json": true}, results); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]bool{"predictions on gpu": true, "judgments on llm": true}, queues); diff != "" {
		t.Error(diff)
	}
}

func TestAnEndpointThatAnswersNeedsNoDevice(t *testing.T) {
	w := newWorld(t)
	w.fail = func(call activities.Call) error {
		if call.Stage == "predictions" && strings.Contains(string(call.Params), `"answer"`) {
			if _, ok := call.Inputs["checkpoint"]; ok || call.Class != "" || QueueOf(activities.ActivityName(call)) != QueueLLM {
				t.Errorf("asked with inputs %v for class %q", call.Inputs, call.Class)
			}
		}
		return nil
	}
	env := w.env()
	env.ExecuteWorkflow(Study, StudyInput{Spec: mustParse(t, benchmarked, "benchmarks.predictor=judge")})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	// What the endpoint answers does not depend on the cell: it is asked once.
	if got := w.made["predictions"]; got != 2+3 {
		t.Errorf("%d predictions", got)
	}
}

func TestMistakesInBenchmarksAreTold(t *testing.T) {
	for set, says := range map[string]string{
		"benchmarks.longbench.judge=gpt":             `benchmarks.longbench.judge: "gpt" is no endpoint`,
		"benchmarks.longbench.max_sample=3":          "did you mean max_samples?",
		"benchmarks.longbench.path=":                 "benchmarks.longbench.path",
		"benchmarks.predictor=offline":               "benchmarks.predictor",
		"benchmarks.mt_bench={path: /data/mt}":       "benchmarks.mt_bench.judge",
		"benchmarks.needle.question=Why?":            "needle, question and expected",
		"benchmarks.needle.expected=[x]":             "needle, question and expected",
		"benchmarks.short_tasks={}":                  "benchmarks.short_tasks",
		"benchmarks.short_tasks.lm_eval=true":        "one of the two",
		"benchmarks.longbench_chat={judge: offline}": "benchmarks.longbench_chat.path",
	} {
		_, err := ParseSpec("f.yaml", []byte(benchmarked), []string{set})
		var se *SpecError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", set, err, says)
		}
	}
}

func TestWhereBenchmarksLieIsNotPartOfWhatTheyAre(t *testing.T) {
	spec := mustParse(t, benchmarked)
	names := []string{}
	for _, p := range spec.Benchmarks.Plans("m", 1) {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"longbench", "needle", "en_qa", "short_tasks"}) || spec.Benchmarks.Template != "longalign" {
		t.Errorf("benchmarks %v with template %q", names, spec.Benchmarks.Template)
	}
}
