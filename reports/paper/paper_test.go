package paper

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The same facts, written down independently, lie beside some checkouts.
func TestNumbersEqualTheReferenceTranscription(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "reference", "paper_results.json"))
	if err != nil {
		t.Skip("no reference transcription beside the repository")
	}
	var ref struct {
		Table1 map[string]any `json:"table1_judge_correlation"`
		Table2 struct {
			Rows map[string]map[string]float64 `json:"rows"`
		} `json:"table2_data"`
		Table3      map[string]map[string]map[string]float64 `json:"table3_training_methods"`
		Table4      map[string]map[string]map[string]float64 `json:"table4_scaling"`
		Figure5     map[string]map[string]float64            `json:"figure5_training_hours_8xA800"`
		Leaderboard [][]any                                  `json:"leaderboard_rows"`
	}
	if err := json.Unmarshal(b, &ref); err != nil {
		t.Fatal(err)
	}
	delete(ref.Table1, "note")
	table1 := map[string]any{}
	for k, v := range JudgeCorrelation() {
		table1[k] = map[string]any{"spearman": v.Spearman, "kendall": v.Kendall}
	}
	scores := func(r Row) map[string]float64 {
		m := map[string]float64{}
		for _, name := range Metrics() {
			if v, ok := r.Score(name); ok {
				m[name] = v
			}
		}
		return m
	}
	table2 := map[string]map[string]float64{}
	for _, r := range Table2() {
		table2[r.Dataset] = scores(r)
	}
	methods := func(rows []Row) map[string]map[string]map[string]float64 {
		out := map[string]map[string]map[string]float64{}
		for _, r := range rows {
			if out[r.Model] == nil {
				out[r.Model] = map[string]map[string]float64{}
			}
			out[r.Model][r.Method] = scores(r)
		}
		return out
	}
	hours := map[string]map[string]float64{}
	for _, h := range Figure5() {
		if hours[h.Method] == nil {
			hours[h.Method] = map[string]float64{}
		}
		hours[h.Method][h.Model] = h.Hours
	}
	var leaderboard [][]any
	for _, r := range Leaderboard() {
		leaderboard = append(leaderboard, []any{r.Benchmark, r.Metric, r.Value})
	}
	for name, pair := range map[string][2]any{
		"table 1": {ref.Table1, table1}, "table 2": {ref.Table2.Rows, table2}, "table 3": {ref.Table3, methods(Table3())},
		"table 4": {ref.Table4, methods(Table4())}, "figure 5": {ref.Figure5, hours}, "leaderboard": {ref.Leaderboard, leaderboard},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestEveryRowHasEveryMetricOfItsTable(t *testing.T) {
	for _, r := range append(Table2(), Table3()...) {
		if len(r.Scores) != len(Metrics()) {
			t.Errorf("%s %s %s has %d scores, want %d", r.Model, r.Dataset, r.Method, len(r.Scores), len(Metrics()))
		}
	}
	if _, ok := Table4()[0].Score(MMLU); ok {
		t.Error("Table 4 has no MMLU")
	}
}
