package reports

import (
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// CurveSeries is the training loss of one method, a point a step, and the held-out loss where it was measured.
type CurveSeries struct {
	Name    string
	Points  []CurvePoint
	HeldOut []CurvePoint
}

// LearningCurves draws each loss as it was (thin) and its exponential moving average
// (thick), which keeps decay of the past at each step (Figure 6), and held-out losses dashed. 0 ≤ decay < 1.
func LearningCurves(f Figure, series []CurveSeries, decay float64) (*Figure, error) {
	if !(decay >= 0 && decay < 1) {
		return nil, fmt.Errorf("figure %s: decay is %v; it must be at least 0 and below 1", f.Name, decay)
	}
	axis := "training loss (nats/token)"
	if slices.ContainsFunc(series, func(s CurveSeries) bool { return len(s.HeldOut) > 0 }) {
		axis = "loss (nats/token)"
	}
	p := newPlot("optimizer step", axis)
	p.X.Tick.Marker, p.Y.Tick.Marker = niceTicks{}, niceTicks{}
	d := drawing{width: figureWidth, height: figureHeight, paint: p.Draw}
	p.Add(grid{})
	var thick []plot.Plotter
	var said []string
	for i, s := range series {
		if len(s.Points) == 0 {
			continue
		}
		colour := seriesColours[i%len(seriesColours)]
		raw, smooth := curve(s.Points), curve(s.Points)
		average := EMA(s.Points, decay)
		for k := range smooth {
			smooth[k].Y = average[k]
		}
		faint := hexColour(colour)
		faint.A = 110
		for _, l := range []struct {
			xy    plotter.XYs
			style draw.LineStyle
			to    *[]plot.Plotter
		}{{raw, draw.LineStyle{Color: faint, Width: 0.7}, nil}, {smooth, draw.LineStyle{Color: hexColour(colour), Width: 1.7}, &thick}} {
			line, err := plotter.NewLine(l.xy)
			if err != nil {
				return nil, fmt.Errorf("figure %s: %s: %w", f.Name, s.Name, err)
			}
			line.LineStyle = l.style
			if l.to != nil {
				*l.to = append(*l.to, line)
				continue
			}
			p.Add(line)
		}
		d.keys = append(d.keys, key{s.Name, colour})
		said = append(said, s.Name+" "+course(average[0], average[len(average)-1]))
		if n := len(s.HeldOut); n > 0 {
			line, dots, err := plotter.NewLinePoints(curve(s.HeldOut))
			if err != nil {
				return nil, fmt.Errorf("figure %s: %s: held-out loss: %w", f.Name, s.Name, err)
			}
			line.LineStyle = draw.LineStyle{Color: hexColour(colour), Width: 1.2, Dashes: []vg.Length{4, 3}}
			dots.GlyphStyle = draw.GlyphStyle{Color: hexColour(colour), Radius: 2, Shape: draw.CircleGlyph{}}
			thick = append(thick, line, dots)
			said[len(said)-1] += ", held out " + course(s.HeldOut[0].Loss, s.HeldOut[n-1].Loss)
		}
	}
	if len(said) == 0 {
		return nil, fmt.Errorf("figure %s: %w", f.Name, ErrNoData)
	}
	p.Add(thick...) // on top of all raw lines
	widen(&p.Y)
	f.Alt = fmt.Sprintf("%s. Smoothed: %s.", f.Title, strings.Join(said, "; "))
	f.drawing = d
	return &f, nil
}

// curve is the points as the plotter takes them.
func curve(points []CurvePoint) plotter.XYs {
	xys := make(plotter.XYs, len(points))
	for k, p := range points {
		xys[k] = plotter.XY{X: float64(p.Step), Y: p.Loss}
	}
	return xys
}

// smoothing returns the decay for a curve of n steps: a window of a tenth of them, 20
// at most, so that short runs are not flattened.
func smoothing(n int) float64 { return 1 - 1/max(2, min(20, float64(n)/10)) }

// EMA returns the exponential moving average of the losses, corrected for its start:
// the mean of what it has seen, weighted by decay to the power of the age.
func EMA(points []CurvePoint, decay float64) []float64 {
	out := make([]float64, len(points))
	sum, weight := 0.0, 0.0
	for i, p := range points {
		sum = decay*sum + (1-decay)*p.Loss
		weight = decay*weight + (1 - decay)
		out[i] = sum / weight
	}
	return out
}
