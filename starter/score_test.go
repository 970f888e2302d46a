package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/testenv/refdata"
)

// predictionsDir writes prediction files of our own.
func predictionsDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	rightRow  = `{"pred":"the clock is slow","answers":["a slow clock"],"all_classes":null,"length":100,"_id":"a"}` + "\n"
	wrongRow  = `{"pred":"","answers":["the river"],"all_classes":null,"length":9000,"_id":"b"}` + "\n"
	failedRow = `{"failed":"the service refused to answer","answers":["the river"],"all_classes":null,"length":5000,"_id":"c"}` + "\n"
	markedRow = `{"pred":"#define A 1\nint b;","answers":["#define A 1"],"all_classes":null,"length":1}` + "\n"
)

func TestScorePrintsWhatTheOriginalWrites(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		args  []string
		want  string
		says  []string // on standard error
	}{
		"scores in the benchmark's order": {
			map[string]string{"lcc.jsonl": markedRow, "qasper.jsonl": rightRow + wrongRow}, nil, `{"qasper": 40, "lcc": 35}`,
			[]string{"no predictions for narrativeqa, ", "qasper: 2 rows, longbench has 200"},
		},
		"buckets, an empty one null": {
			map[string]string{"qasper_e.jsonl": rightRow + wrongRow}, []string{"--benchmark", "longbench-e"}, `{"qasper": {"0-4k":80,"4-8k":null,"8k+":0}}`,
			[]string{"qasper: 2 rows, longbench-e has 224"},
		},
		"samples, a failed one null": {
			map[string]string{"qasper.jsonl": rightRow + failedRow + wrongRow}, []string{"--per-sample"}, `{"qasper": [0.8,null,0]}`,
			[]string{"1 samples failed and count in no score"},
		},
		"corrected scores with the reason": {
			map[string]string{"lcc.jsonl": markedRow}, []string{"--corrected"},
			`{"lcc": {"compat":35,"corrected":100,"changed":{"marked-code-line":1},"why":{"marked-code-line":"the original skips right code lines that hold ` + "`" + `, # or //"}}}`, nil,
		},
		"averages, those without a dataset null": {
			map[string]string{"lcc.jsonl": markedRow, "qasper.jsonl": rightRow + wrongRow}, []string{"--averages"},
			`{"single-doc QA": {"compat":40,"corrected":40,"datasets":1,"missing":3}, "multi-doc QA": {"compat":null,"corrected":null,"datasets":0,"missing":4},
			"summarization": {"compat":null,"corrected":null,"datasets":0,"missing":4}, "few-shot learning": {"compat":null,"corrected":null,"datasets":0,"missing":4},
			"synthetic tasks": {"compat":null,"corrected":null,"datasets":0,"missing":3}, "code completion": {"compat":35,"corrected":100,"datasets":1,"missing":1},
			"en": {"compat":37.5,"corrected":70,"datasets":2,"missing":14}, "zh": {"compat":35,"corrected":100,"datasets":1,"missing":6},
			"overall": {"compat":37.5,"corrected":70,"datasets":2,"missing":19}}`, []string{"averages over them are incomplete"},
		},
		"duplicates count twice in the original": {
			map[string]string{"qasper.jsonl": rightRow + wrongRow + rightRow}, []string{"--per-sample", "--corrected"},
			`{"qasper": [{"_id":"a","compat":0.8,"corrected":0.8},{"_id":"b","compat":0,"corrected":0},{"_id":"a","compat":0.8,"corrected":null,"reason":"duplicate-row"}]}`,
			[]string{"lines 1 and 3 both have _id a", "appended to by a second run?"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"score", "--benchmark", "longbench", "--predictions", predictionsDir(t, tt.files)}, tt.args...)
			code, stdout, stderr := starterRun(t.Context(), args...)
			if code != exitDone {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			var got, want any
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s\n%s", diff, stdout)
			}
			contains(t, "score", stderr, tt.says...)
		})
	}
	_, stdout, _ := starterRun(t.Context(), "score", "--benchmark", "longbench", "--predictions", predictionsDir(t, map[string]string{"lcc.jsonl": markedRow, "qasper.jsonl": rightRow}))
	if strings.Index(stdout, "qasper") > strings.Index(stdout, "lcc") {
		t.Errorf("not in the benchmark's order:\n%s", stdout)
	}
}

func TestScoreSaysWhatIsWrongWithPredictions(t *testing.T) {
	t.Setenv(jieba.EnvDir, "")
	for name, tt := range map[string]struct {
		files map[string]string
		args  []string
		code  int
		says  []string
	}{
		"no such benchmark":        {map[string]string{"qasper.jsonl": rightRow}, []string{"--benchmark", "longbenchmark"}, exitUsage, []string{`"longbenchmark"`, "longbench-e"}},
		"no files":                 {nil, nil, exitFailed, []string{"one file a dataset", "narrativeqa.jsonl"}},
		"a file of no dataset":     {map[string]string{"squad.jsonl": rightRow}, nil, exitFailed, []string{"squad.jsonl", "is not part of longbench"}},
		"no rows":                  {map[string]string{"qasper.jsonl": "\n"}, nil, exitFailed, []string{"qasper.jsonl has no rows"}},
		"a row without answers":    {map[string]string{"qasper.jsonl": rightRow + `{"pred":"x"}`}, nil, exitFailed, []string{"qasper.jsonl:2", `no "answers"`}},
		"a row without prediction": {map[string]string{"qasper.jsonl": `{"answers":["x"]}`}, nil, exitFailed, []string{"qasper.jsonl:1", `no "pred"`}},
		"a row cut off":            {map[string]string{"qasper.jsonl": rightRow + `{"pred":"x","ans`}, nil, exitFailed, []string{"qasper.jsonl:2"}},
		"no UTF-8":                 {map[string]string{"qasper.jsonl": "{\"pred\":\"\xff\",\"answers\":[\"x\"]}"}, nil, exitFailed, []string{"qasper.jsonl:1", "not valid UTF-8"}},
		"mixed languages":          {map[string]string{"qasper.jsonl": rightRow + strings.Replace(wrongRow, "{", `{"language":"zh",`, 1)}, nil, exitFailed, []string{"qasper.jsonl:2", "do not mix languages"}},
		"another dataset's row":    {map[string]string{"qasper.jsonl": strings.Replace(rightRow, "{", `{"dataset":"musique",`, 1)}, nil, exitFailed, []string{"qasper.jsonl:1", "musique"}},
		"no classes":               {map[string]string{"trec.jsonl": rightRow}, nil, exitFailed, []string{"trec.jsonl:1", "all_classes"}},
		"no lengths":               {map[string]string{"qasper.jsonl": strings.Replace(rightRow, `"length":100,`, "", 1)}, []string{"--benchmark", "longbench-e"}, exitFailed, []string{"qasper.jsonl:1", "length"}},
		"an answer without number": {map[string]string{"passage_retrieval_en.jsonl": rightRow}, nil, exitFailed, []string{"passage_retrieval_en.jsonl:1", "paragraph number"}},
		"no dictionary there":      {map[string]string{"vcsum.jsonl": rightRow}, []string{"--jieba", os.TempDir()}, exitFailed, []string{"--jieba", jieba.DictFile}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"score", "--benchmark", "longbench", "--predictions", predictionsDir(t, tt.files)}, tt.args...)
			code, stdout, stderr := starterRun(t.Context(), args...)
			if code != tt.code || stdout != "" {
				t.Errorf("exit %d, want %d; printed %q", code, tt.code, stdout)
			}
			contains(t, "score", stderr, tt.says...)
		})
	}
	file := filepath.Join(predictionsDir(t, map[string]string{"qasper.jsonl": rightRow}), "qasper.jsonl")
	code, _, stderr := starterRun(t.Context(), "score", "--benchmark", "longbench", "--predictions", file)
	if code != exitFailed || !strings.Contains(stderr, "is a file") {
		t.Errorf("a file in place of a directory: exit %d, %s", code, stderr)
	}
}

// BenchmarkScore is the whole command on one model's 21 files, loading of the dictionary included.
func BenchmarkScore(b *testing.B) {
	dir := refdata.Path(b, "cases/longbench_predictions/llama2-7b-chat-4k")
	if _, err := jieba.Find(""); err != nil {
		b.Skip(err)
	}
	for b.Loop() {
		if code, _, stderr := starterRun(b.Context(), "score", "--benchmark", "longbench", "--predictions", dir); code != exitDone {
			b.Fatal(stderr)
		}
	}
}
