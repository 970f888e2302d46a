package reports

import (
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/longalign/longalign-go/reports/paper"
)

// NeedleHeatmap draws the needle test's scores over lengths and depths, in the colours
// of the paper's Figure 4, with their scale. Cells without a score are hatched.
func NeedleHeatmap(f Figure, g *NeedleGrid) (*Figure, error) {
	if err := g.validate(); err != nil {
		return nil, fmt.Errorf("figure %s: %w", f.Name, err)
	}
	lengths, depths := make([]string, len(g.Lengths)), make([]string, len(g.Depths))
	for i, l := range g.Lengths {
		lengths[i] = strconv.Itoa(l)
		if l%1000 == 0 {
			lengths[i] = strconv.Itoa(l/1000) + "k"
		}
	}
	for i, d := range g.Depths {
		depths[i] = strconv.FormatFloat(d, 'f', -1, 64) + " %"
	}
	p := newPlot("context length (tokens)", "depth of the needle")
	p.X.Min, p.X.Max = -0.5, float64(len(lengths))-0.5
	p.Y.Min, p.Y.Max = -0.5, float64(len(depths))-0.5
	p.X.Tick.Marker, p.Y.Tick.Marker = thinned(namedTicks(lengths), 12), flipped(depths)
	p.X.Tick.Length, p.Y.Tick.Length = 0, 0
	p.X.LineStyle.Width, p.Y.LineStyle.Width = 0, 0
	p.X.Padding, p.Y.Padding = 2, 2
	p.Add(plotterFunc(func(c draw.Canvas, p *plot.Plot) { g.paint(c, p) }))
	height := vg.Length(max(170, min(figureHeight, 90+22*len(depths))))
	d := drawing{width: figureWidth, height: height, paint: func(c draw.Canvas) {
		p.Draw(draw.Crop(c, 0, -58, 0, 0))
		g.paintScale(draw.Crop(c, c.Max.X-c.Min.X-44, -34, 40, 0))
	}}
	low, high, n := math.Inf(1), math.Inf(-1), 0
	for i, row := range g.Scores {
		for j, v := range row {
			if g.N[i][j] > 0 {
				low, high = min(low, v), max(high, v)
				n++
			}
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("figure %s: %w", f.Name, ErrNoData)
	}
	f.Alt = fmt.Sprintf("%s. %d of %d cells measured, scores from %.2f to %.2f.", f.Title, n, len(lengths)*len(depths), low, high)
	if g.Unit != "" {
		f.Caption = strings.TrimSpace(f.Caption + " Scale: " + g.Unit + ".")
	}
	f.Sources = union(f.Sources, g.Sources)
	f.drawing = d
	return &f, nil
}

func (g *NeedleGrid) validate() error {
	if g == nil || len(g.Lengths) == 0 || len(g.Depths) == 0 {
		return ErrNoData
	}
	if len(g.Scores) != len(g.Depths) || len(g.N) != len(g.Depths) {
		return fmt.Errorf("needle: %d rows of scores and %d of counts for %d depths", len(g.Scores), len(g.N), len(g.Depths))
	}
	for i := range g.Scores {
		if len(g.Scores[i]) != len(g.Lengths) || len(g.N[i]) != len(g.Lengths) {
			return fmt.Errorf("needle: row %d has %d scores and %d counts for %d lengths", i+1, len(g.Scores[i]), len(g.N[i]), len(g.Lengths))
		}
		for j, v := range g.Scores[i] {
			if g.N[i][j] > 0 && (math.IsNaN(v) || math.IsInf(v, 0)) {
				return fmt.Errorf("needle: the score at depth %v and length %d is %v; count failed samples as missing", g.Depths[i], g.Lengths[j], v)
			}
		}
	}
	if !(g.Low < g.High) {
		return fmt.Errorf("needle: the scale goes from %v to %v; its low end must be below its high end", g.Low, g.High)
	}
	return nil
}

// flipped puts the first name on top: depth 0 is where the context starts.
func flipped(names []string) plot.ConstantTicks {
	ticks := namedTicks(names)
	for i := range ticks {
		ticks[i].Value = float64(len(names) - 1 - i)
	}
	return ticks
}

// thinned keeps about most of the labels, evenly.
func thinned(ticks plot.ConstantTicks, most int) plot.ConstantTicks {
	every := (len(ticks) + most - 1) / most
	for i := range ticks {
		if i%every != 0 {
			ticks[i].Label = ""
		}
	}
	return ticks
}

func (g *NeedleGrid) paint(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := textStyle(smallText-1, cellInk)
	style.XAlign, style.YAlign = draw.XCenter, draw.YCenter
	for i := range g.Depths {
		row := float64(len(g.Depths) - 1 - i)
		for j := range g.Lengths {
			left, right := x(float64(j)-0.5), x(float64(j)+0.5)
			bottom, top := y(row-0.5), y(row+0.5)
			if g.N[i][j] == 0 {
				line := draw.LineStyle{Color: hexColour(emptyColour), Width: 0.5}
				c.StrokeLines(line, []vg.Point{{X: left + 1, Y: bottom + 1}, {X: right - 1, Y: top - 1}})
				c.StrokeLines(line, []vg.Point{{X: left + 1, Y: top - 1}, {X: right - 1, Y: bottom + 1}})
				continue
			}
			c.SetColor(g.colour(g.Scores[i][j]))
			c.Fill(rectangle(left+0.5, bottom+0.5, right-0.5, top-0.5))
			s := strconv.FormatFloat(g.Scores[i][j], 'f', 1, 64)
			if style.Width(s)+4 < right-left && top-bottom > smallText+2 {
				c.FillText(style, vg.Point{X: (left + right) / 2, Y: (bottom + top) / 2}, s)
			}
		}
	}
}

// unitWidth is the room for a unit below the scale.
const unitWidth = 44

// paintScale draws the colour scale with its ends and its unit.
func (g *NeedleGrid) paintScale(c draw.Canvas) {
	const steps = 60
	height := (c.Max.Y - c.Min.Y) / steps
	for i := range steps {
		c.SetColor(g.colour(g.Low + (g.High-g.Low)*(float64(i)+0.5)/steps))
		bottom := c.Min.Y + height*vg.Length(i)
		c.Fill(rectangle(c.Min.X, bottom, c.Max.X, bottom+height+0.3))
	}
	style := textStyle(smallText, inkColour)
	style.YAlign = draw.YCenter
	for _, v := range []float64{g.Low, (g.Low + g.High) / 2, g.High} {
		at := c.Min.Y + (c.Max.Y-c.Min.Y)*vg.Length((v-g.Low)/(g.High-g.Low))
		at = max(c.Min.Y+4, min(c.Max.Y-4, at))
		c.FillText(style, vg.Point{X: c.Max.X + 4, Y: at}, strconv.FormatFloat(v, 'g', 3, 64))
	}
	style.YAlign, style.XAlign = draw.YTop, draw.XCenter
	if style.Width(g.Unit) < unitWidth { // a longer one is in the caption
		c.FillText(style, vg.Point{X: (c.Min.X + c.Max.X) / 2, Y: c.Min.Y - 4}, g.Unit)
	}
}

// colour interpolates between the paper's three colours; values beyond the ends take
// the end's.
func (g *NeedleGrid) colour(v float64) color.NRGBA {
	names := paper.NeedleColours()
	at := 2 * max(0, min(1, (v-g.Low)/(g.High-g.Low)))
	i := min(1, int(at))
	a, b, t := hexColour(names[i]), hexColour(names[i+1]), at-float64(i)
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a) + (float64(b)-float64(a))*t)) }
	return color.NRGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 255}
}
