package reports

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDemoTables(t *testing.T) {
	got, err := Render(Text, Tables(demoStudy())...)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "demo.txt", got)
	markdown, err := Render(Markdown, Tables(demoStudy())...)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "demo.md", markdown)
	again, err := Render(Text, Tables(demoStudy())...)
	if err != nil || !bytes.Equal(got, again) {
		t.Error("the same study gave other tables", err)
	}
}

func TestReportIsOneFileThatRepeatsByteForByte(t *testing.T) {
	got, err := RenderReport(demoStudy())
	if err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	again, err := RenderReport(demoStudy())
	if err != nil || !bytes.Equal(got, again) {
		t.Error("the same study gave another report", err)
	}
	if other := regexp.MustCompile(`(?:src|href)="(?:[^#"d][^"]*)"|url\(|@import`).Find(got); other != nil {
		t.Errorf("the report needs something outside: %s", other)
	}
}

func TestEveryLinkOfTheReportLeadsSomewhere(t *testing.T) {
	got, err := RenderReport(demoStudy())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllSubmatch(got, -1) {
		ids[string(m[1])]++
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements have id %q", n, id)
		}
	}
	links := 0
	for _, m := range regexp.MustCompile(` href="#([^"]+)"`).FindAllSubmatch(got, -1) {
		links++
		if ids[string(m[1])] == 0 {
			t.Errorf("a link leads to #%s, which is not there", m[1])
		}
	}
	if links < 100 {
		t.Errorf("only %d links: numbers do not lead to their sources", links)
	}
}

func TestEveryNumberOfAScoreLeadsToItsArtifacts(t *testing.T) {
	for _, table := range DemoTables(demoStudy()) {
		for i, r := range table.Rows {
			for j, c := range r.Cells {
				if c.HasValue() && len(c.Sources) == 0 {
					t.Errorf("table %s, row %d, column %s: %v has no source", table.Name, i+1, table.Columns[j].Name, c.Value)
				}
			}
		}
	}
}

func TestReportIsMadeWhenPartsAreMissing(t *testing.T) {
	for name, change := range map[string]func(*Study){
		"no cells":                    func(s *Study) { s.Cells = nil },
		"no data":                     func(s *Study) { s.Data = nil },
		"no stages":                   func(s *Study) { s.Stages = nil },
		"no baseline":                 func(s *Study) { s.Baseline = "" },
		"no timing, shares or curves": func(s *Study) { strip(s) },
		"a manifest that is missing":  func(s *Study) { s.Stages = append(s.Stages, StageUse{}) },
		"a needle of the wrong shape": func(s *Study) { s.Cells[0].Needle = &NeedleGrid{Lengths: []int{1}, Depths: []float64{0}} },
		"paper tables without scores": func(s *Study) { s.Kind = KindPaper },
		"one seed":                    func(s *Study) { s.Cells = s.Cells[:1] },
		"a sample scored twice": func(s *Study) {
			set := s.Cells[0].Scores[MetricLoss]
			set.Samples = append(set.Samples, set.Samples[0])
			s.Cells[0].Scores[MetricLoss] = set
		},
		"an empty study": func(s *Study) { *s = Study{ID: "x"} },
	} {
		t.Run(name, func(t *testing.T) {
			s := demoStudy()
			s.Resamples = 50
			change(s)
			got, err := RenderReport(s)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(got, []byte("</html>")) {
				t.Error("the report is cut short")
			}
			if _, err := Render(Text, Tables(s)...); err != nil {
				t.Error(err)
			}
		})
	}
}

func strip(s *Study) {
	for i := range s.Cells {
		s.Cells[i].Timing, s.Cells[i].LossShare, s.Cells[i].Curve = nil, nil, nil
	}
}

func TestTextFromOutsideIsEscaped(t *testing.T) {
	s := demoStudy()
	s.Resamples = 50
	const evil = `<script>alert("x")</script>`
	s.Title, s.Description, s.Methods[0].Label = evil, evil, evil
	s.Problems = []string{evil}
	got, err := RenderReport(s)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(got, []byte("<script>alert")) {
		t.Error("a name from the specification became code")
	}
}

func TestStudyKeepsItsContentThroughJSON(t *testing.T) {
	want := demoStudy()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Study
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Error(diff)
	}
}

func TestVerdicts(t *testing.T) {
	want := []Verdict{Held, Held, Held, Held, WithinNoise, Held, NotMeasured}
	var got []Verdict
	for _, o := range Observe(demoStudy()) {
		got = append(got, o.Verdict)
		if o.Observed == "" {
			t.Errorf("nothing is said about %q", o.Claim)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s := demoStudy()
	for i := range s.Expected {
		switch e := &s.Expected[i]; e.Direction {
		case ExpectHigher:
			e.Direction = ExpectLower
		case ExpectLower:
			e.Direction = ExpectHigher
		}
	}
	want = []Verdict{NotHeld, NotHeld, NotHeld, Held, WithinNoise, NotHeld, NotMeasured}
	got = nil
	for _, o := range Observe(s) {
		got = append(got, o.Verdict)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("expectations turned around:", diff)
	}
}

func TestOneTimingProvesNothing(t *testing.T) {
	s := demoStudy()
	s.Expected = []Expectation{{Metric: "seconds", A: "packing", B: "naive", Direction: ExpectLower}}
	var first []CellData
	for _, c := range s.Cells {
		if c.Seed == 1 {
			first = append(first, c)
		}
	}
	s.Cells = first
	if o := Observe(s)[0]; o.Verdict != WithinNoise {
		t.Errorf("one seed's time gave the verdict %q: %s", o.Verdict, o.Observed)
	}
}

func TestFewSamplesDecideNothing(t *testing.T) {
	cell := func(method string, n int, v float64) CellData {
		set := ScoreSet{}
		for i := range n {
			set.Samples = append(set.Samples, Sample{ID: fmt.Sprint(i), Value: v + 0.01*float64(i)})
		}
		return CellData{Method: method, Scores: map[string]ScoreSet{MetricLoss: set, MetricF1: set}}
	}
	for n, decided := range map[int]bool{1: false, 2: false, MinPairs - 1: false, MinPairs: true} {
		s := &Study{Kind: KindDemo, Resamples: 100, Cells: []CellData{cell("a", n, 1), cell("b", n, 2)}, Expected: []Expectation{
			{Metric: MetricLoss, A: "a", B: "b", Direction: ExpectLower}, {Metric: MetricLoss, A: "a", B: "b", Direction: ExpectEqual}}}
		want := []Verdict{TooFew, TooFew}
		if decided {
			want = []Verdict{Held, NotHeld}
		}
		for i, o := range Observe(s) {
			if o.Verdict != want[i] || !decided && !strings.Contains(o.Observed, "too few") {
				t.Errorf("n = %d, %s: %q, %s", n, o.Expectation.Direction, o.Verdict, o.Observed)
			}
		}
		marked := false
		for _, table := range Tables(s) {
			for _, r := range table.Rows {
				for _, c := range r.Cells {
					marked = marked || c.Best
				}
			}
		}
		if marked != decided {
			t.Errorf("n = %d: a best value is marked: %v", n, marked)
		}
		other := &Study{Kind: KindDemo, Resamples: 100, Cells: []CellData{cell("a", n, 5)}}
		for _, x := range Compare(s, other).Cells {
			if want := map[bool]Outcome{false: Undecided, true: Differs}[decided]; x.Method == "a" && x.Metric.Bucket == nil && x.Outcome != want {
				t.Errorf("n = %d: compared: %q, want %q", n, x.Outcome, want)
			}
		}
	}
}

func TestNoVerdictBeforeEverySeedHasResults(t *testing.T) {
	s := demoStudy()
	s.Expected = s.Expected[:4]
	s.Cells = slices.DeleteFunc(s.Cells, func(c CellData) bool { return c.Method == "weighted" && c.Seed == 2 })
	for _, o := range Observe(s) {
		if o.Verdict != Unfinished || !strings.Contains(o.Observed, "2 of 3 seeds") {
			t.Errorf("%s: %q, %s", o.Claim, o.Verdict, o.Observed)
		}
	}
	s = demoStudy()
	s.Cells = slices.DeleteFunc(s.Cells, func(c CellData) bool { return c.Seed > 1 })
	s.Missing = map[string]string{"method=packing,seed=2": "killed"}
	s.Expected = s.Expected[:1]
	if o := Observe(s)[0]; o.Verdict != Unfinished || !strings.Contains(o.Observed, "1 of 2 seeds") {
		t.Errorf("a seed that failed everywhere: %q, %s", o.Verdict, o.Observed)
	}
}

func TestAnUnknownRangeIsAnsweredWithTheKnown(t *testing.T) {
	s := demoStudy()
	s.Expected = []Expectation{{Metric: "share/1-9", A: "packing", B: "naive", Direction: ExpectLower}}
	if o := Observe(s)[0]; o.Verdict != NotMeasured || !strings.Contains(o.Observed, "no range 1–9; its ranges are 1–7, 8–63, ≥ 64") {
		t.Errorf("%q: %s", o.Verdict, o.Observed)
	}
}

func BenchmarkRenderReport(b *testing.B) {
	s := demoStudy()
	for b.Loop() {
		if _, err := RenderReport(s); err != nil {
			b.Fatal(err)
		}
	}
}

func TestExpectationsThatMakeNoSenseAreRefused(t *testing.T) {
	methods := []string{"naive", "packing"}
	for name, tt := range map[string]struct {
		e    Expectation
		want string
	}{
		"an unknown direction": {Expectation{Metric: "loss", A: "naive", B: "packing", Direction: "up"}, `direction "up" is not known; use lower, higher or equal`},
		"an unknown method":    {Expectation{Metric: "loss", A: "nave", B: "packing", Direction: "lower"}, `there is no method "nave"; the study has naive, packing`},
		"a method with itself": {Expectation{Metric: "loss", A: "naive", B: "naive", Direction: "lower"}, "compares naive with itself"},
		"a bad range":          {Expectation{Metric: "loss/9-3", A: "naive", B: "packing", Direction: "lower"}, `range of lengths "9-3": write 8-31, 5 or 128+`},
		"a share of nothing":   {Expectation{Metric: "share", A: "naive", B: "packing", Direction: "lower"}, "needs a range of answer lengths"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.e.Validate(methods)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}
