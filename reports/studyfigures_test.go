package reports

import (
	"strings"
	"testing"

	"github.com/longalign/longalign-go/reports/paper"
)

// A model of one's own is drawn beside the paper's, by the same methods.
func TestFiguresHaveModelsThatThePaperHasNot(t *testing.T) {
	s := &Study{Kind: KindPaper, Methods: []Method{{Name: "w", Published: paper.Weighting}, {Name: "p", Published: paper.Packing}}, Cells: []CellData{
		{Method: "w", Model: "mine-7B", Dataset: "my data", Timing: &Timing{Seconds: 7200}, Scores: map[string]ScoreSet{paper.LongBenchChat: {Samples: []Sample{{ID: "1", Value: 6.5}}}}},
		{Method: "p", Model: "mine-7B", Dataset: "my data", Timing: &Timing{Seconds: 9000}},
		{Method: "p", Model: paper.Llama7B, Dataset: "my data", Timing: &Timing{Seconds: 1}}, // the paper's model on other data stands beside nothing
	}}
	for name, tt := range map[string]struct {
		draw func(*Study) (*Figure, error)
		want []string
	}{
		"Figure 5": {TimeFigure, []string{"mine-7B: ", "packing, ours 2.5", "packing+loss weighting, ours 2.0", "Llama-2-7B-64k: naive, published 67.2, sorted, published 23.3, packing, published 23.4, packing, ours not measured"}},
		"Figure 1": {OverviewFigure, []string{"packing+loss weighting: ChatGLM3-6B-64k, published 6.21, Llama-2-7B-64k, published 6.10, mine-7B 6.50"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := tt.draw(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(f.Alt, want) {
					t.Errorf("want %q in: %s", want, f.Alt)
				}
			}
		})
	}
}

func TestADifferenceThatRoundsToNothingHasNoDirection(t *testing.T) {
	s := &Study{}
	e := Expectation{Metric: MetricLoss, A: "naive", B: "packing"}
	for _, tt := range []struct {
		diff float64
		want string
	}{
		{0, "naive: held-out loss is the same as with packing."},
		{-0.0004, "naive: held-out loss differs by less than 0.0005\u00a0nats/token from that with packing."},
		{0.0006, "naive: held-out loss is 0.001\u00a0nats/token higher than with packing."},
	} {
		if got := s.sentence(Metric{Name: MetricLoss}, e, Contrast{Diff: tt.diff}); got != tt.want {
			t.Errorf("%v: %s", tt.diff, got)
		}
	}
}
