package reports

import (
	"strings"
	"testing"
)

// grouped makes samples of two datasets of unequal size.
func groupedSamples(a, b float64) []Sample {
	return []Sample{
		{ID: "x/1", Value: a, Group: "x"}, {ID: "x/2", Value: a, Group: "x"}, {ID: "x/3", Value: a, Group: "x"},
		{ID: "y/1", Value: b, Group: "y"},
	}
}

func TestInAveragesEveryDatasetCountsAlike(t *testing.T) {
	s := &Study{Cells: []CellData{
		{Method: "m", Scores: map[string]ScoreSet{"longbench:overall": {Samples: groupedSamples(10, 50)}}},
		{Method: "n", Scores: map[string]ScoreSet{"longbench:overall": {Samples: groupedSamples(20, 40)}}},
	}}
	m := Metric{Name: "longbench:overall"}
	if c := s.cell(m, s.of("m")); c.Value != 30 || c.N != 4 {
		t.Errorf("the mean is %v of %d samples, want 30 of 4", c.Value, c.N)
	}
	if d := s.contrast(m, s.of("m"), s.of("n")); d.Diff != 0 || d.Unpaired != "" || d.Low > 0 || d.High < 0 {
		t.Errorf("the difference is %+v, want 0: one dataset gains what the other loses", d)
	}
}

func TestTheBenchmarkTableShowsCorrectionsOnlyWhereTheyDiffer(t *testing.T) {
	same := ScoreSet{Samples: []Sample{{ID: "1", Value: 4}, {ID: "2", Value: 6}}, Wanted: 200}
	other := ScoreSet{Samples: []Sample{{ID: "1", Value: 5}, {ID: "2", Value: 6}}, Wanted: 200}
	cell := func(method string) CellData {
		return CellData{Method: method, Scores: map[string]ScoreSet{
			"longbench:lcc": same, "longbench:lcc:corrected": other, "longbench:qasper": same, "longbench:qasper:corrected": same,
			"longbench:overall": {Samples: groupedSamples(1, 2)}, "NarrativeQA F1 Score": same, "NarrativeQA SubEM": same, "MMLU": same, "LongBench-Chat": same, "S-Doc QA": same, "MT-Bench": same,
		}}
	}
	table := BenchmarkTable(&Study{Cells: []CellData{cell("a"), cell("b")}})
	if err := table.Validate(); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, r := range table.Rows {
		rows = append(rows, r.Cells[0].Text)
		if d := r.Cells[3]; d.N == 0 {
			t.Errorf("row %s has no paired difference: %+v", r.Cells[0].Text, d)
		}
		if n := len(r.Cells); n != 4 {
			t.Errorf("row %s has %d cells, want the name, two methods and a difference", r.Cells[0].Text, n)
		}
	}
	if got, want := strings.Join(rows, "|"), "LongBench-Chat|S-Doc QA|MT-Bench|qasper|lcc|lcc, corrected|overall|NarrativeQA F1 Score|NarrativeQA SubEM"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
	if c := table.Rows[0].Cells[1]; !c.Incomplete || c.N != 2 || c.Wanted != 200 {
		t.Errorf("two of 200 samples print as complete: %+v", c)
	}
}

func TestAnAverageWithoutOneOfItsDatasetsIsIncomplete(t *testing.T) {
	samples := groupedSamples(10, 50)
	samples[3].Failed = true
	set := map[string]ScoreSet{"longbench:overall": {Samples: samples, Wanted: 4}}
	s := &Study{Cells: []CellData{{Method: "m", Scores: set}, {Method: "n", Scores: set}}}
	m := Metric{Name: "longbench:overall"}
	if c := s.cell(m, s.of("m")); !c.Incomplete || c.N != 3 || c.Failed != 1 {
		t.Errorf("without y, the mean of x and y is %+v, want it incomplete", c)
	}
	if d := s.contrast(m, s.of("m"), s.of("n")); !strings.Contains(d.Unpaired, "y") {
		t.Errorf("without y, the difference of the means of x and y is %+v", d)
	}
}

func TestAnEndpointsAnswersAreNotAMethodsResult(t *testing.T) {
	set := ScoreSet{Samples: []Sample{{ID: "1", Value: 4}, {ID: "2", Value: 6}}, AnsweredBy: "far-model"}
	cell := func(method string) CellData {
		return CellData{Method: method, Model: "Llama-2-7B-64k", Dataset: "LongAlign-10k", Scores: map[string]ScoreSet{"longbench:lcc": set, "LongBench-Chat": set}}
	}
	s := &Study{Kind: KindPaper, Cells: []CellData{cell("naive"), cell("packing")}}
	if d := s.contrast(Metric{Name: "LongBench-Chat"}, s.of("packing"), s.of("naive")); !strings.Contains(d.Unpaired, "far-model") {
		t.Errorf("one model's answers are compared with themselves as if two methods had made them: %+v", d)
	}
	out, err := Render(Text, PaperTables(s)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "answered by far-model") {
		t.Errorf("no footnote says who answered:\n%s", out)
	}
	for name, figure := range map[string]func(*Study) (*Figure, error){"overview": OverviewFigure, "leaderboard": LeaderboardFigure} {
		leaders := *s
		for i := range leaders.Cells {
			leaders.Cells[i].Scores["LongBench-Chat Point-wise Rate"] = set
			leaders.Cells[i].Model = "Llama-2-7B"
		}
		if f, err := figure(&leaders); err != nil || name == "leaderboard" && len(f.Marks) != 1 {
			t.Errorf("figure %s does not say who answered: %v %v", name, f.Marks, err)
		}
	}
}
