package longbench

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/testenv/refdata"
)

var openInstalled = sync.OnceValues(func() (*jieba.Dictionary, error) { return jieba.Open("") })

func scoreReference(tb testing.TB, b Benchmark, dir string) *Report {
	tb.Helper()
	report, err := ScoreDir(b, os.DirFS(dir), openInstalled)
	if errors.Is(err, jieba.ErrNotFound) {
		tb.Skip("no jieba dictionary on this machine: ", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return report
}

func readJSON[T any](tb testing.TB, path string) T {
	tb.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

func TestPublishedScoresAreReproduced(t *testing.T) {
	for folder, b := range map[string]Benchmark{"longbench_predictions": LongBench, "longbench_e_predictions": LongBenchE} {
		results, err := filepath.Glob(filepath.Join(refdata.Path(t, "cases/"+folder), "*", "result.json"))
		if err != nil || len(results) == 0 {
			t.Fatal("no results to compare with: ", err)
		}
		for _, path := range results {
			dir := filepath.Dir(path)
			t.Run(filepath.Base(dir), func(t *testing.T) {
				report := scoreReference(t, b, dir)
				got := map[string]any{}
				for i := range report.Results {
					raw, err := json.Marshal(report.Results[i].CompatJSON())
					if err != nil {
						t.Fatal(err)
					}
					var v any
					if err := json.Unmarshal(raw, &v); err != nil {
						t.Fatal(err)
					}
					got[report.Results[i].Dataset.Name] = v
				}
				if diff := cmp.Diff(readJSON[map[string]any](t, path), got); diff != "" {
					t.Error(diff)
				}
				if w := report.Warnings(); len(w) > 0 {
					t.Error("complete files are warned about: ", w)
				}
				for _, res := range report.Results {
					changed := slices.ContainsFunc(res.Samples, func(s Sample) bool { return s.Reason != "" })
					if !changed && res.Compat != res.Corrected {
						t.Errorf("%s: %v is corrected to %v without a reason", res.Dataset.Name, res.Compat, res.Corrected)
					}
				}
				if samples := filepath.Join(dir, "per_sample.json"); b == LongBench {
					compareSamples(t, report, readJSON[map[string][]float64](t, samples))
				}
			})
		}
	}
}

// Sample scores agree to the last bit, so the tolerance is none.
func compareSamples(t *testing.T, report *Report, want map[string][]float64) {
	for _, res := range report.Results {
		var got []float64
		for _, s := range res.Samples {
			got = append(got, s.Compat)
		}
		if diff := cmp.Diff(want[res.Dataset.Name], got); diff != "" {
			t.Errorf("%s: %s", res.Dataset.Name, diff)
		}
	}
}

func TestRealInputsAndPromptsLoad(t *testing.T) {
	prompts, err := LoadPrompts(os.DirFS(refdata.Path(t, "reference/longbench")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"multi_news", "multifieldqa_zh"} {
		d, err := Lookup(LongBench, name)
		if err != nil {
			t.Fatal(err)
		}
		f, path, err := OpenInputs(os.DirFS(refdata.Path(t, "cases/inputs")), LongBench, d)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		err = ReadInputs(f, path, d, func(in Input) error {
			n++
			text, limit, err := prompts.Prompt(d, in)
			if err == nil && (len(text) <= len(in.Context)+len(in.Input) || limit <= 0) {
				t.Errorf("%s: prompt of %d bytes, limit %d", in.ID, len(text), limit)
			}
			return err
		})
		if err != nil || n != d.Rows {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
	}
	for _, d := range Datasets(LongBench) {
		if _, _, err := prompts.Prompt(d, Input{}); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkScoreDir(b *testing.B) {
	dir := refdata.Path(b, "cases/longbench_predictions/qwen3-8b")
	for b.Loop() {
		_, err := ScoreDir(LongBench, os.DirFS(dir), func() (*jieba.Dictionary, error) { return jieba.Open("") })
		if err != nil {
			b.Fatal(err)
		}
	}
}
