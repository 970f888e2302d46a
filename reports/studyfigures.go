package reports

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/reports/paper"
)

// Figures draws every figure that the study has numbers for, and says why others failed.
// A figure without numbers is left out silently: its table says that they are missing.
func Figures(s *Study) (figures []*Figure, problems []string) {
	makers := []func(*Study) (*Figure, error){LossShareFigure, LossChangeFigure, TimeFigure, CurvesFigure}
	lengths := []func(*Study, int) (*Figure, error){LengthsFigure, AnswersFigure}
	if s.Kind == KindPaper {
		makers = []func(*Study) (*Figure, error){OverviewFigure, LeaderboardFigure, TimeFigure, CurvesFigure}
		lengths = lengths[:1]
	}
	for i := range s.data() {
		for _, draw := range lengths {
			makers = append(makers, func(s *Study) (*Figure, error) { return draw(s, i) })
		}
	}
	for _, m := range s.methods() {
		makers = append(makers, func(s *Study) (*Figure, error) { return NeedleFigure(s, m.Name) })
	}
	for _, draw := range makers {
		f, err := draw(s)
		switch {
		case errors.Is(err, ErrNoData):
		case err != nil:
			problems = append(problems, err.Error())
		default:
			f.Marks = union(f.Marks, s.Marks)
			f.Footnotes = append(f.Footnotes, s.Footnotes...)
			figures = append(figures, f)
		}
	}
	return figures, problems
}

// LossShareFigure is the demo's central figure: the share of the loss by answer length for
// each method, next to the shares of the sequences and of the target tokens.
func LossShareFigure(s *Study) (*Figure, error) {
	t := LossShareTable(s)
	f := Figure{Name: "loss-share", Title: "Share of the training loss by answer length",
		Caption: "Each bar divides the loss of one method among answers of different length, counted from the plan. " +
			"A loss in which every answer counts alike follows the bar of the sequences; one in which every token counts alike follows the bar of the tokens.",
		Marks: []string{NoteExact}}
	c := BarChart{Axis: "share (%)", Decimals: 0, Stacked: true}
	for j, col := range t.Columns[1:] {
		c.Series = append(c.Series, BarSeries{Name: col.Name + " tokens", Colour: rangeColours[j%len(rangeColours)]})
	}
	for _, r := range t.Rows {
		if r.Minor {
			continue
		}
		label := strings.TrimPrefix(strings.TrimPrefix(r.Cells[0].Text, "of the "), "target ")
		c.Groups = append(c.Groups, label)
		for j, cell := range r.Cells[1:] {
			c.Series[j].add(cell)
			f.Sources = union(f.Sources, cell.Sources)
		}
	}
	return Bars(f, c)
}

func valueOrNaN(c Cell) float64 {
	if !c.HasValue() {
		return math.NaN()
	}
	return c.Value
}

// LossChangeFigure shows by answer length how each method's held-out loss differs from the
// baseline's.
func LossChangeFigure(s *Study) (*Figure, error) {
	f := Figure{Name: "loss-change", Title: "Held-out loss against " + s.label(s.baseline()),
		Caption: "Difference in held-out loss by answer length, below 0 is better. Whiskers are the interval of the paired difference.",
		Marks:   []string{differenceNote}, Footnotes: []Footnote{differenceFootnote()}}
	if s.baseline() == "" {
		return nil, fmt.Errorf("figure %s: there is no baseline: %w", f.Name, ErrNoData)
	}
	base := s.of(s.baseline())
	c := BarChart{Axis: "difference (nats/token)", Decimals: 3, Groups: []string{"all"}}
	metrics := []Metric{{Name: MetricLoss}}
	for _, b := range s.buckets() {
		c.Groups = append(c.Groups, b.String()+" tokens")
		metrics = append(metrics, Metric{MetricLoss, &b})
	}
	for i, m := range s.methods() {
		if m.Name == s.baseline() {
			continue
		}
		series := BarSeries{Name: m.label(), Colour: seriesColours[i%len(seriesColours)]}
		cells := s.of(m.Name)
		for _, metric := range metrics {
			d := s.contrast(metric, cells, base)
			if d.Unpaired != "" {
				d.Diff, d.Low, d.High = math.NaN(), math.NaN(), math.NaN()
			}
			series.Values, series.Low, series.High = append(series.Values, d.Diff), append(series.Low, d.Low), append(series.High, d.High)
		}
		for i := range cells {
			f.Sources = union(f.Sources, cells[i].Scores[MetricLoss].Sources)
		}
		c.Series = append(c.Series, series)
	}
	return Bars(f, c)
}

// TimeFigure is Figure 5: for a study of the paper's models the hours of each, ours beside
// the published ones; otherwise the measured seconds and the simulated ones.
func TimeFigure(s *Study) (*Figure, error) {
	f := Figure{Name: "time", Title: "Training time by method"}
	if s.Kind == KindPaper {
		return paperTime(s, f)
	}
	f.Caption = "Measured on the machine named under provenance, and simulated from its micro-batch times for data-parallel devices. Means over seeds."
	f.Marks = []string{NoteMeasured, NoteSimulated}
	c := BarChart{Axis: "seconds", Decimals: 0, Groups: []string{"measured on this machine", "simulated on several devices"}}
	for i, m := range s.methods() {
		cells := s.of(m.Name)
		measured := timingCell(cells, func(t *Timing) (float64, bool) { return t.Seconds, t.Seconds > 0 })
		simulated := timingCell(cells, func(t *Timing) (float64, bool) {
			if t.Simulated == nil {
				return 0, false
			}
			c.Groups[1] = fmt.Sprintf("simulated on %d devices", t.Simulated.Devices)
			return t.Simulated.Seconds, true
		})
		c.Series = append(c.Series, BarSeries{Name: m.label(), Colour: seriesColours[i%len(seriesColours)],
			Values: []float64{valueOrNaN(measured), valueOrNaN(simulated)}})
		f.Sources = union(f.Sources, measured.Sources)
		if longest := max(measured.Value, simulated.Value); longest > 0 && longest < 10 {
			c.Decimals = 2 // seconds would all read 0
		}
	}
	return Bars(f, c)
}

func paperTime(s *Study, f Figure) (*Figure, error) {
	f.Caption = "Published hours on eight A800 GPUs, and ours on the machine named under provenance."
	f.Marks = []string{NoteMeasured}
	c := BarChart{Axis: "hours", Decimals: 1, Groups: append([]string{paper.ChatGLM3, paper.Llama7B, paper.Llama13B}, s.ownModels()...)}
	for i, method := range []string{paper.Naive, paper.Sorted, paper.Packing, paper.Weighting} {
		published := BarSeries{Name: method + ", published", Colour: faint(seriesColours[i])}
		ours := BarSeries{Name: method + ", ours", Colour: seriesColours[i]}
		known, any := false, false
		for _, model := range c.Groups {
			hours := math.NaN()
			for _, h := range paper.Figure5() {
				if h.Model == model && h.Method == method {
					hours = h.Hours
				}
			}
			published.Values = append(published.Values, hours)
			known = known || !math.IsNaN(hours)
			cells := s.comparable(model, method)
			cell := timingCell(cells, func(t *Timing) (float64, bool) { return t.Seconds / 3600, t.Seconds > 0 })
			any = any || cell.HasValue()
			ours.add(cell)
			f.Sources = union(f.Sources, cell.Sources)
		}
		if known {
			c.Series = append(c.Series, published)
		}
		if any {
			c.Series = append(c.Series, ours)
		}
	}
	return Bars(f, c)
}

// ownModels are the study's models that the paper does not have.
func (s *Study) ownModels() []string {
	var out []string
	for _, c := range s.Cells {
		published := slices.ContainsFunc(slices.Concat(paper.Table3(), paper.Table4()), func(r paper.Row) bool { return r.Model == c.Model })
		if c.Model != "" && !published && !slices.Contains(out, c.Model) {
			out = append(out, c.Model)
		}
	}
	return out
}

// comparable are the cells of a model trained by one of the paper's methods: on the paper's data, where the model is the paper's.
func (s *Study) comparable(model, method string) []CellData {
	if !slices.Contains(s.ownModels(), model) {
		return s.matching(paper.Row{Model: model, Dataset: "LongAlign-10k", Method: method})
	}
	var out []CellData
	for _, m := range s.methods() {
		if m.Published == method {
			out = append(out, slices.DeleteFunc(s.of(m.Name), func(c CellData) bool { return c.Model != model })...)
		}
	}
	return out
}

// faint mixes a colour half and half with white: the published neighbour of our bar.
func faint(s string) string {
	c := hexColour(s)
	return fmt.Sprintf("#%02X%02X%02X", (int(c.R)+255)/2, (int(c.G)+255)/2, (int(c.B)+255)/2)
}

// CurvesFigure is Figure 6: the training loss of each method, averaged over its seeds.
func CurvesFigure(s *Study) (*Figure, error) {
	f := Figure{Name: "curves", Title: "Training loss"}
	var series []CurveSeries
	longest, watched := 0, false
	for _, m := range s.methods() {
		c := CurveSeries{Name: m.label()}
		var trained, heldOut []CurvePoint
		for _, cell := range s.of(m.Name) {
			for _, p := range cell.Curve {
				trained = append(trained, CurvePoint{Step: p.Step, Loss: p.Loss})
				if p.HeldOut != nil {
					heldOut = append(heldOut, CurvePoint{Step: p.Step, Loss: *p.HeldOut})
				}
			}
			f.Sources = union(f.Sources, cell.CurveSources)
		}
		c.Points, c.HeldOut = meanBySteps(trained), meanBySteps(heldOut)
		series = append(series, c)
		longest, watched = max(longest, len(c.Points)), watched || len(c.HeldOut) > 0
	}
	decay := smoothing(longest)
	f.Caption = fmt.Sprintf("Thin: the loss of each optimizer step, averaged over seeds. Thick: its exponential moving average (decay %.2f). "+
		"Methods with different losses are not on one scale.", decay)
	if watched {
		f.Title = "Training and held-out loss"
		f.Caption += " Dashed, with dots: the loss of held-out answers after the step, every answer counting alike unless the method counts tokens alike."
	}
	return LearningCurves(f, series, decay)
}

// meanBySteps averages the points of each step, in the order of steps.
func meanBySteps(points []CurvePoint) (mean []CurvePoint) {
	sum, n := map[int]float64{}, map[int]int{}
	for _, p := range points {
		sum[p.Step] += p.Loss
		n[p.Step]++
	}
	for _, step := range slices.Sorted(maps.Keys(sum)) {
		mean = append(mean, CurvePoint{Step: step, Loss: sum[step] / float64(n[step])})
	}
	return mean
}

// LengthsFigure is Figure 3: the lengths of the training sequences in the study's i-th data.
func LengthsFigure(s *Study, i int) (*Figure, error) {
	return s.lengthFigure("lengths", "Length of the training sequences", i, func(d *DataSummary) []int { return d.InputLengths })
}

// AnswersFigure shows the lengths of the training answers in the study's i-th data.
func AnswersFigure(s *Study, i int) (*Figure, error) {
	return s.lengthFigure("answers", "Length of the training answers", i, func(d *DataSummary) []int { return d.AnswerLengths })
}

func (s *Study) lengthFigure(name, title string, i int, lengths func(*DataSummary) []int) (*Figure, error) {
	all := s.data()
	if i >= len(all) {
		return nil, fmt.Errorf("figure %s: %w", name, ErrNoData)
	}
	f := Figure{Name: name, Title: title, Marks: slices.Clone(all[i].Marks), Sources: slices.Clone(all[i].Sources)}
	if i > 0 {
		f.Name = fmt.Sprintf("%s-%d", name, i+1)
	}
	if all[i].Name != "" {
		f.Title += ": " + all[i].Name
	}
	return LengthHistogram(f, lengths(all[i]))
}

// NeedleFigure is Figure 4 for one method: the grid of its first seed that has one.
func NeedleFigure(s *Study, method string) (*Figure, error) {
	for _, c := range s.of(method) {
		if c.Needle != nil {
			f := Figure{Name: "needle-" + method, Title: fmt.Sprintf("Needle in a haystack: %s, seed %d", s.label(method), c.Seed),
				Caption: "Mean score by context length and by how deep in the context the needle lies. Crossed cells were not measured."}
			f.Marks = answeredNote(c.Needle.AnsweredBy)
			return NeedleHeatmap(f, c.Needle)
		}
	}
	return nil, fmt.Errorf("figure needle: method %s: %w", method, ErrNoData)
}

// OverviewFigure is Figure 1: LongBench-Chat by training method, published and ours.
func OverviewFigure(s *Study) (*Figure, error) {
	f := Figure{Name: "overview", Title: "LongBench-Chat by training method", Caption: "Published scores of the paper's models beside ours."}
	rows := paper.Table3()
	c := BarChart{Axis: "LongBench-Chat (1-10)", Decimals: 2}
	models := []string{paper.ChatGLM3, paper.Llama7B}
	for i, model := range models {
		published := BarSeries{Name: model + ", published", Colour: faint(seriesColours[i+1])}
		ours := BarSeries{Name: model + ", ours", Colour: seriesColours[i+1]}
		any := false
		for _, r := range rows {
			if r.Model != model {
				continue
			}
			if i == 0 {
				c.Groups = append(c.Groups, r.Method)
			}
			v, _ := r.Score(paper.LongBenchChat)
			published.Values = append(published.Values, v)
			cell := s.cell(Metric{Name: paper.LongBenchChat}, s.matching(r))
			any = any || cell.HasValue()
			f.Marks = union(f.Marks, toldBeside(cell))
			ours.add(cell)
			f.Sources = union(f.Sources, cell.Sources)
		}
		c.Series = append(c.Series, published)
		if any {
			c.Series = append(c.Series, ours)
		}
	}
	for i, model := range s.ownModels() {
		ours := BarSeries{Name: model, Colour: seriesColours[(len(models)+1+i)%len(seriesColours)]}
		for _, method := range c.Groups {
			cell := s.cell(Metric{Name: paper.LongBenchChat}, s.comparable(model, method))
			f.Marks = union(f.Marks, toldBeside(cell))
			ours.add(cell)
			f.Sources = union(f.Sources, cell.Sources)
		}
		if slices.ContainsFunc(ours.Values, func(v float64) bool { return !math.IsNaN(v) }) {
			c.Series = append(c.Series, ours)
		}
	}
	return Bars(f, c)
}

// LeaderboardFigure shows the leaderboard table's rows as bars, published and ours.
func LeaderboardFigure(s *Study) (*Figure, error) {
	t := LeaderboardTable(s)
	f := Figure{Name: "leaderboard", Title: "Leaderboard", Caption: t.Caption}
	published := BarSeries{Name: "published", Colour: seriesColours[0]}
	var ours []BarSeries
	for j, col := range t.Columns[2:] {
		ours = append(ours, BarSeries{Name: col.Name, Colour: seriesColours[1+j%(len(seriesColours)-1)]})
	}
	c := BarChart{Axis: "score (%)", Decimals: 1}
	measured := false
	for _, r := range t.Rows {
		c.Groups = append(c.Groups, r.Cells[0].Text+" "+r.Cells[1].Text)
		published.Values = append(published.Values, *r.Cells[2].Published)
		for j, cell := range r.Cells[2:] {
			measured = measured || cell.HasValue()
			f.Marks = union(f.Marks, toldBeside(cell))
			ours[j].add(cell)
			f.Sources = union(f.Sources, cell.Sources)
		}
	}
	c.Series = []BarSeries{published}
	if measured {
		c.Series = append(c.Series, ours...)
	}
	return Bars(f, c)
}
