package reports

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// BarSeries is one colour of a bar chart: a value for each group, NaN where nothing was
// measured. Low and High, where given, bound 95 % intervals.
type BarSeries struct {
	Name              string
	Values, Low, High []float64
	// Partial, where given, marks values that lack samples: their bars are hollow.
	Partial []bool
	// Colour is a hex colour; empty means the next of the palette.
	Colour string
}

// add appends a table's cell.
func (s *BarSeries) add(c Cell) {
	s.Values = append(s.Values, valueOrNaN(c))
	s.Partial = append(s.Partial, c.HasValue() && c.Incomplete)
}

// partial tells whether the value of a group lacks samples.
func (s *BarSeries) partial(group int) bool { return s.Partial != nil && s.Partial[group] }

// BarChart is a set of groups of bars.
type BarChart struct {
	Groups []string
	Series []BarSeries
	// Axis labels the values, Decimals are the digits of the numbers on the bars.
	Axis     string
	Decimals int
	// Stacked puts a group's bars on top of each other, for parts of a whole.
	Stacked bool
}

// Bars draws c: training times (Figure 5), an overview of scores (Figure 1), parts of the loss.
func Bars(f Figure, c BarChart) (*Figure, error) {
	drawn, partial := false, false
	top, bottom := 0.0, 0.0
	for i := range c.Series {
		s := &c.Series[i]
		if len(s.Values) != len(c.Groups) {
			return nil, fmt.Errorf("figure %s: series %q has %d values for %d groups", f.Name, s.Name, len(s.Values), len(c.Groups))
		}
		if s.Colour == "" {
			s.Colour = seriesColours[i%len(seriesColours)]
		}
		for g, v := range s.Values {
			if math.IsNaN(v) {
				continue
			}
			drawn = true
			partial = partial || s.partial(g)
			top, bottom = max(top, v), min(bottom, v)
			if s.High != nil && !math.IsNaN(s.High[g]) {
				top, bottom = max(top, s.High[g]), min(bottom, s.Low[g])
			}
		}
	}
	if !drawn {
		return nil, fmt.Errorf("figure %s: %w", f.Name, ErrNoData)
	}
	if c.Stacked {
		for g := range c.Groups {
			sum := 0.0
			for _, s := range c.Series {
				if !math.IsNaN(s.Values[g]) {
					sum += s.Values[g]
				}
			}
			top = max(top, sum)
		}
	}
	width := max(figureWidth, 72*float64(len(c.Groups))) // labels need room
	p := newPlot("", c.Axis)
	p.X.Min, p.X.Max = -0.5, float64(len(c.Groups))-0.5
	p.Y.Min, p.Y.Max = bottom, top
	if room := 0.08 * (top - bottom); !c.Stacked { // for the numbers
		p.Y.Max += room
		if bottom < 0 {
			p.Y.Min -= room
		}
	}
	if p.Y.Max == p.Y.Min {
		p.Y.Max = p.Y.Min + 1
	}
	p.Y.Tick.Marker = niceTicks{}
	p.X.LineStyle.Width = 0
	p.X.Tick.Marker = namedTicks(wrapLabels(c.Groups, (width-70)/float64(len(c.Groups))))
	p.X.Tick.Length = 0
	p.Add(grid{}, &bars{c})
	f.drawing = drawing{width: vg.Length(width), height: figureHeight, paint: p.Draw}
	for _, s := range c.Series {
		f.drawing.keys = append(f.drawing.keys, key{s.Name, s.Colour})
	}
	f.Alt = c.alt(f.Title)
	if partial {
		f.Caption = strings.TrimSpace(f.Caption + " Hollow bars lack samples and are not final.")
		f.Marks = union(f.Marks, []string{NoteIncomplete})
	}
	return &f, nil
}

// alt reads the chart's numbers.
func (c BarChart) alt(title string) string {
	out := []string{}
	for g, group := range c.Groups {
		var parts []string
		for _, s := range c.Series {
			v := "not measured"
			if !math.IsNaN(s.Values[g]) {
				v = barNumber(s.Values[g], c.Decimals)
			}
			if s.partial(g) {
				v += " (incomplete)"
			}
			parts = append(parts, s.Name+" "+v)
		}
		out = append(out, group+": "+strings.Join(parts, ", "))
	}
	return title + ". " + strings.Join(out, "; ") + "."
}

// bars paints the bars of a chart.
type bars struct{ BarChart }

// Plot implements plot.Plotter.
func (b *bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	label := textStyle(smallText, inkColour)
	label.XAlign, label.YAlign = draw.XCenter, draw.YBottom
	inside := textStyle(smallText, cellInk)
	inside.XAlign, inside.YAlign = draw.XCenter, draw.YCenter
	unit := x(1) - x(0)
	width := min(unit*0.8/vg.Length(len(b.Series)), 54)
	if b.Stacked {
		width = min(unit*0.6, 70)
	}
	var labels []vg.Rectangle // where numbers are
	for g := range b.Groups {
		base := 0.0
		for i, s := range b.Series {
			center := x(float64(g))
			if !b.Stacked {
				center += width * (vg.Length(i) - vg.Length(len(b.Series)-1)/2)
			}
			v := s.Values[g]
			if math.IsNaN(v) {
				if !b.Stacked && label.Width("n/a")+4 < width {
					c.FillText(label, vg.Point{X: center, Y: y(0) + 2}, "n/a")
				}
				continue
			}
			left, right := center-width*0.45, center+width*0.45
			c.SetColor(hexColour(s.Colour))
			if bar := rectangle(left, y(base), right, y(base+v)); s.partial(g) {
				c.SetLineWidth(1.5)
				c.Stroke(bar)
			} else {
				c.Fill(bar)
			}
			number := barNumber(v, b.Decimals)
			if b.Stacked {
				if h := y(base+v) - y(base); h > smallText+3 && width > inside.Width(number)+4 {
					c.FillText(inside, vg.Point{X: center, Y: y(base) + h/2}, number)
				}
				base += v
				continue
			}
			above, below := max(v, 0), min(v, 0)
			if s.High != nil && !math.IsNaN(s.High[g]) && s.Low[g] < s.High[g] {
				line := draw.LineStyle{Color: hexColour(inkColour), Width: 0.9}
				c.StrokeLine2(line, center, y(s.Low[g]), center, y(s.High[g]))
				c.StrokeLine2(line, center-3, y(s.Low[g]), center+3, y(s.Low[g]))
				c.StrokeLine2(line, center-3, y(s.High[g]), center+3, y(s.High[g]))
				above, below = max(above, s.High[g]), min(below, s.Low[g])
			}
			bottom := y(above) + 2
			if v < 0 { // the number stands where the bar ends
				bottom = y(below) - 2 - smallText
			}
			at := rectangleOf(center, bottom, label.Width(number))
			free := !slices.ContainsFunc(labels, func(o vg.Rectangle) bool { return overlap(o, at) })
			for _, beside := range []int{i - 1, i + 1} { // a bar that is higher hides what reaches over it
				if v >= 0 && beside >= 0 && beside < len(b.Series) && b.Series[beside].Values[g] > v && label.Width(number) > width*1.1 && y(b.Series[beside].Values[g]) > at.Min.Y {
					free = false
				}
			}
			if free {
				labels = append(labels, at)
				c.FillText(label, vg.Point{X: center, Y: bottom}, number)
			}
		}
	}
}

// rectangleOf is the place of a label above a bar.
func rectangleOf(center, bottom, width vg.Length) vg.Rectangle {
	return vg.Rectangle{Min: vg.Point{X: center - width/2 - 1.5, Y: bottom}, Max: vg.Point{X: center + width/2 + 1.5, Y: bottom + smallText}}
}

func overlap(a, b vg.Rectangle) bool {
	return a.Min.X < b.Max.X && b.Min.X < a.Max.X && a.Min.Y < b.Max.Y && b.Min.Y < a.Max.Y
}

// barNumber is the number on a bar. One that rounds to 0 without being 0 says so.
func barNumber(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if v > 0 && strings.Trim(s, "0.") == "" {
		return "<" + strconv.FormatFloat(math.Pow10(-decimals), 'f', decimals, 64)
	}
	return s
}

func rectangle(x0, y0, x1, y1 vg.Length) vg.Path {
	return vg.Rectangle{Min: vg.Point{X: min(x0, x1), Y: min(y0, y1)}, Max: vg.Point{X: max(x0, x1), Y: max(y0, y1)}}.Path()
}

// grid paints thin horizontal lines at the labelled ticks.
type grid struct{}

// Plot implements plot.Plotter.
func (grid) Plot(c draw.Canvas, p *plot.Plot) {
	_, y := p.Transforms(&c)
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if !t.IsMinor() {
			c.StrokeLine2(draw.LineStyle{Color: hexColour(gridColour), Width: 0.5}, c.Min.X, y(t.Value), c.Max.X, y(t.Value))
		}
	}
}

// namedTicks labels the positions 0, 1, 2, ….
func namedTicks(names []string) plot.ConstantTicks {
	ticks := make(plot.ConstantTicks, len(names))
	for i, n := range names {
		ticks[i] = plot.Tick{Value: float64(i), Label: n}
	}
	return ticks
}

// wrapLabels breaks labels at spaces into lines of at most width points where they can.
func wrapLabels(names []string, width float64) []string {
	style := textStyle(smallText, inkColour)
	out := make([]string, len(names))
	for i, name := range names {
		line := ""
		for _, word := range strings.Fields(latin(name)) {
			switch {
			case line == "":
				line = word
			case float64(style.Width(line+" "+word)) <= width-6:
				line += " " + word
			default:
				out[i] += line + "\n"
				line = word
			}
		}
		out[i] += line
	}
	return out
}

// niceTicks labels multiples of 1, 2 or 5 times a power of ten, with thousands as "k"
// from 10,000 on. Of counts, whole, there are no fractions.
type niceTicks struct{ whole bool }

// Ticks implements plot.Ticker.
func (n niceTicks) Ticks(low, high float64) []plot.Tick {
	step := niceStep((high - low) / 5)
	if n.whole {
		step = max(1, step)
	}
	var out []plot.Tick
	first := math.Ceil(low/step - 1e-9)
	for i := range 7 { // a step is a fifth of the range or more
		v := (first+float64(i))*step + 0 // + 0 turns −0 into 0
		if v > high+step*1e-9 {
			break
		}
		out = append(out, plot.Tick{Value: v, Label: tickLabel(v, step)})
	}
	return out
}

// widen gives an axis whose values are equal, but for rounding, a range that can be divided.
func widen(a *plot.Axis) {
	if size := max(math.Abs(a.Min), math.Abs(a.Max), 1); a.Max-a.Min < 1e-6*size {
		a.Min, a.Max = a.Min-0.05*size, a.Max+0.05*size
	}
}

func niceStep(raw float64) float64 {
	if raw <= 0 || math.IsInf(raw, 0) || math.IsNaN(raw) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

func tickLabel(v, step float64) string {
	if v != 0 && step >= 1000 {
		return strconv.FormatFloat(v/1000, 'f', -1, 64) + "k"
	}
	decimals := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// LengthHistogram draws how many sequences have which length in tokens (Figure 3).
func LengthHistogram(f Figure, lengths []int) (*Figure, error) {
	if len(lengths) == 0 {
		return nil, fmt.Errorf("figure %s: %w", f.Name, ErrNoData)
	}
	longest := slices.Max(lengths)
	width := max(1, int(niceStep(float64(longest)/30)))
	counts := make([]float64, longest/width+1)
	for _, l := range lengths {
		if l < 0 {
			return nil, fmt.Errorf("figure %s: a length is %d", f.Name, l)
		}
		counts[l/width]++
	}
	p := newPlot("length in tokens", "sequences")
	p.X.Min, p.X.Max = 0, float64(len(counts)*width)
	p.Y.Min, p.Y.Max = 0, slices.Max(counts)*1.05
	p.X.Tick.Marker, p.Y.Tick.Marker = niceTicks{whole: true}, niceTicks{whole: true}
	p.Add(grid{}, plotterFunc(func(c draw.Canvas, p *plot.Plot) {
		x, y := p.Transforms(&c)
		c.SetColor(hexColour(seriesColours[1]))
		for i, n := range counts {
			if n > 0 {
				c.Fill(rectangle(x(float64(i*width))+0.4, y(0), x(float64((i+1)*width))-0.4, y(n)))
			}
		}
	}))
	sorted := slices.Sorted(slices.Values(lengths))
	f.Alt = fmt.Sprintf("%s. %d sequences; median %d, 90th percentile %d, longest %d tokens.", f.Title, len(sorted),
		sorted[(len(sorted)-1)/2], sorted[(len(sorted)-1)*9/10], longest)
	f.drawing = drawing{width: figureWidth, height: figureHeight, paint: p.Draw}
	return &f, nil
}

// plotterFunc lets a function be a plot.Plotter.
type plotterFunc func(draw.Canvas, *plot.Plot)

// Plot implements plot.Plotter.
func (f plotterFunc) Plot(c draw.Canvas, p *plot.Plot) { f(c, p) }
