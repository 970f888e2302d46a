package reports

import (
	"fmt"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/reports/paper"
)

// paperStudy has three methods on one of the paper's models and one model of its own: scores
// with samples, a score that another program computed, and one that is not finished.
func paperStudy() *Study {
	s := &Study{ID: "paper-1", Name: "paper", Kind: KindPaper, Resamples: 200,
		Methods: []Method{{Name: "naive", Published: paper.Naive}, {Name: "packing", Published: paper.Packing},
			{Name: "weighted", Label: "packing + loss weighting", Published: paper.Weighting}},
	}
	for i, m := range s.Methods {
		c := CellData{Method: m.Name, Model: paper.Llama7B, Dataset: "LongAlign-10k", Scores: map[string]ScoreSet{}}
		chat := ScoreSet{Marks: []string{NoteOffline}, Sources: []string{"scores/" + strings.Repeat("a", 12) + "/1"}}
		for k := range 50 {
			chat.Samples = append(chat.Samples, Sample{ID: fmt.Sprint(k), Value: 5 + float64(i)*0.4 + float64(k%7)/4 + float64(k*i%3)/10})
		}
		c.Scores[paper.LongBenchChat] = chat
		c.Scores[paper.MMLU] = ScoreSet{Mean: 43 + float64(i), N: 14042, Low: 42 + float64(i), High: 44 + float64(i), Marks: []string{NoteImported}}
		qa := ScoreSet{Wanted: 200}
		for k := range 150 + 25*i {
			qa.Samples = append(qa.Samples, Sample{ID: fmt.Sprint(k), Value: 60 + float64(k%5)})
		}
		c.Scores[paper.SingleDocQA] = qa
		c.Scores["MuSiQue F1 Score"] = ScoreSet{Samples: []Sample{{ID: "1", Value: 30}, {ID: "2", Value: 20}, {ID: "3", Failed: true}}}
		c.Timing = &Timing{Seconds: 3600 * float64(20-5*i)}
		s.Cells = append(s.Cells, c)
	}
	s.Cells = append(s.Cells, CellData{Method: "weighted", Model: "Qwen3-8B", Dataset: "LongAlign-10k",
		Scores: map[string]ScoreSet{paper.MMLU: {Mean: 70, N: 14042}}})
	return s
}

func TestPaperTablesSetOursBesideThePublished(t *testing.T) {
	s := paperStudy()
	got, err := Render(Text, Tables(s)...)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "paper.txt", got)

	training, err := Find(Tables(s), "training")
	if err != nil {
		t.Fatal(err)
	}
	cell := func(section, row, column string) Cell {
		for _, r := range training.Rows {
			for j, c := range training.Columns {
				if r.Section == section && r.Cells[0].Text == row && c.Name == column {
					return r.Cells[j]
				}
			}
		}
		t.Fatalf("no cell %s, %s, %s", section, row, column)
		return Cell{}
	}
	for name, tt := range map[string]struct {
		cell Cell
		ok   func(Cell) bool
	}{
		"a score of a published row has the published value beside it": {cell(paper.Llama7B, paper.Naive, paper.LongBenchChat),
			func(c Cell) bool { return c.HasValue() && c.N == 50 && *c.Published == 5.95 }},
		"a row nobody trained is published alone": {cell(paper.ChatGLM3, paper.Sorted, paper.LongBenchChat),
			func(c Cell) bool { return !c.HasValue() && *c.Published == 5.4 }},
		"a score with samples to come is incomplete": {cell(paper.Llama7B, paper.Naive, paper.SingleDocQA),
			func(c Cell) bool { return c.Incomplete && c.N == 150 && c.Wanted == 200 }},
		"no best is marked where a row of the section is unmeasured": {cell(paper.Llama7B, paper.Weighting, paper.LongBenchChat),
			func(c Cell) bool { return !c.Best }},
		"a model of our own has a row of its own": {cell("ours alone", "packing + loss weighting · Qwen3-8B · LongAlign-10k", paper.MMLU),
			func(c Cell) bool { return c.Value == 70 && c.Published == nil }},
	} {
		if !tt.ok(tt.cell) {
			t.Errorf("%s: %+v", name, tt.cell)
		}
	}
}

func TestPaperFiguresSetOursBesideThePublished(t *testing.T) {
	figures, problems := Figures(paperStudy())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	alt := map[string]string{}
	for _, f := range figures {
		alt[f.Name] = f.Alt
	}
	for name, want := range map[string]string{
		"overview": "naive: ChatGLM3-6B-64k, published 5.87, Llama-2-7B-64k, published 5.95, Llama-2-7B-64k, ours 5.7",
		"time":     "Llama-2-7B-64k: naive, published 67.2, naive, ours 20.0",
	} {
		if !strings.Contains(alt[name], want) {
			t.Errorf("figure %s says %q, want %q in it", name, alt[name], want)
		}
	}
}

func TestFilesHaveEveryTableAndFigureInEveryFormat(t *testing.T) {
	s := demoStudy()
	s.Resamples = 50
	files, err := Files(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"report.html", "tables/method.txt", "tables/method.md", "tables/method.tex", "tables/method.csv", "tables/method.json",
		"tables/method.html", "figures/loss-share.svg", "figures/loss-share.pdf", "figures/loss-share.png", "figures/needle-weighted.svg"} {
		if len(files[name]) == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	if p := files["problems.txt"]; p != nil {
		t.Errorf("problems: %s", p)
	}
}

func TestParamsThatMakeNoSenseAreRefused(t *testing.T) {
	if err := (Params{}).Defaults().Validate(); err != nil {
		t.Error("the defaults are refused:", err)
	}
	for name, tt := range map[string]struct {
		p    Params
		want string
	}{
		"an unknown kind":    {Params{Kind: "poster"}, `kind: "poster" is not known`},
		"no devices":         {Params{Devices: -1}, "must be at least 1"},
		"an unknown mark":    {Params{Marks: []string{"small"}}, `marks.0: "small" is not known; use `},
		"a bad expectation":  {Params{Expected: []Expectation{{Metric: "loss", A: "a", B: "b"}}}, `direction "" is not known`},
		"a metric of itself": {Params{Expected: []Expectation{{Metric: "loss", A: "a", B: "a", Direction: "equal"}}}, "with itself"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.p.Defaults().Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}
