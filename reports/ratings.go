package reports

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets/bootstrap"
	"github.com/longalign/longalign-go/reports/paper"
)

// Ratings are the scores that people and judges gave to the same items: Table 1's input.
type Ratings struct {
	Raters []Rater `json:"raters"`
	// Lengths are the items' answer lengths in tokens, nil when unknown.
	Lengths []float64 `json:"lengths,omitempty"`
	Sources []string  `json:"sources,omitempty"`
}

// Rater is one column of ratings.
type Rater struct {
	// Name is the column's, Label what the table prints.
	Name  string `json:"name"`
	Label string `json:"label,omitempty"`
	Human bool   `json:"human,omitempty"`
	// Published is the judge's name in the published table ("gpt-4+few-shot"), if it has one.
	Published string `json:"published,omitempty"`
	// Values[i] rates item i; nil where the rater did not.
	Values []*float64 `json:"values"`
}

// ReadRatings reads the ratings of raters, whose Values it fills, from CSV of items ×
// raters. lengthColumn names the column of answer lengths; "" if there is none.
func ReadRatings(r io.Reader, raters []Rater, lengthColumn string) (*Ratings, error) {
	var names []string
	for _, rater := range raters {
		names = append(names, rater.Name)
	}
	if lengthColumn != "" {
		names = append(names, lengthColumn)
	}
	columns, err := ReadColumns(r, names...)
	if err != nil {
		return nil, err
	}
	out := &Ratings{Raters: slices.Clone(raters)}
	for i := range out.Raters {
		out.Raters[i].Values = make([]*float64, len(columns.Lines))
		for k, v := range columns.Values[i] {
			if !math.IsNaN(v) {
				out.Raters[i].Values[k] = &v
			}
		}
	}
	if lengthColumn != "" {
		out.Lengths = columns.Values[len(raters)]
		for k, v := range out.Lengths {
			if math.IsNaN(v) {
				return nil, fmt.Errorf("csv: line %d has no value in column %q; every answer has a length", columns.Lines[k], lengthColumn)
			}
		}
	}
	return out, nil
}

// lengthBands are the parts of the items by answer length whose bias Table 1 shows.
var lengthBands = []string{"short third", "middle third", "long third"}

// JudgeTable is the paper's Table 1: how people agree with each other, and each judge
// with people. A judge is compared with the mean of the people who rated the item. A rater
// whose correlation is not defined keeps its row, with the reason as footnote.
func JudgeTable(r *Ratings, seed uint64, resamples int) (*Table, error) {
	t := &Table{
		Name:  "judge",
		Title: "Table 1. Agreement of judges with people",
		Caption: "A judge is compared with the mean of the people who rated the item; people are compared pairwise on items that both rated. " +
			"Bias is judge minus people; its thirds are by answer length.",
		Columns: []Column{
			{Name: "Rater", Text: true},
			{Name: "Spearman", Group: "rank correlation", Decimals: 3, Better: Higher},
			{Name: "Kendall τ-b", Group: "rank correlation", Decimals: 3, Better: Higher},
			{Name: "abs. difference", Unit: "points", Decimals: 2, Better: Lower},
			{Name: "bias", Unit: "points", Decimals: 2, Signed: true},
		},
	}
	var humans, judges []Rater
	for _, x := range r.Raters {
		if x.Human {
			humans = append(humans, x)
		} else {
			judges = append(judges, x)
		}
	}
	if len(humans) == 0 {
		return nil, errors.New("ratings: no rater is human; judges can only be compared with people")
	}
	if r.Lengths != nil {
		for _, b := range lengthBands {
			t.Columns = append(t.Columns, Column{Name: b, Group: "bias by answer length", Unit: "points", Decimals: 2, Signed: true})
		}
	}
	row := func(label, published string, x, y, lengths []float64, bias bool) {
		cells := []Cell{Label(label)}
		c, err := Correlate(x, y)
		if err != nil {
			id := fmt.Sprintf("undefined %s", label)
			reason := strings.TrimPrefix(err.Error(), "correlate: ")
			var constant *ConstantError
			if errors.As(err, &constant) {
				reason = "all ratings are " + number(constant.Value)
			}
			t.Footnotes = append(t.Footnotes, Footnote{id, "no rank correlation is defined: " + reason})
			for range 2 {
				cells = append(cells, Cell{Incomplete: true, Marks: []string{id}})
			}
		} else {
			for _, of := range []func(Correlation) float64{
				func(c Correlation) float64 { return c.Spearman }, func(c Correlation) float64 { return c.KendallTauB }} {
				cell := Cell{Value: of(c), N: c.N, Sources: r.Sources}
				cell.Low, cell.High = correlationInterval(x, y, seed, resamples, of)
				cell.Low, cell.High = min(cell.Low, cell.Value), max(cell.High, cell.Value)
				cells = append(cells, cell)
			}
		}
		if p, ok := paper.JudgeCorrelation()[published]; ok {
			cells[1].Published, cells[2].Published = &p.Spearman, &p.Kendall
		}
		var abs, diff []float64
		for i := range x {
			abs = append(abs, math.Abs(x[i]-y[i]))
			diff = append(diff, x[i]-y[i])
		}
		cells = append(cells, meanCell(abs, seed, resamples, r.Sources))
		if !bias {
			for len(cells) < len(t.Columns) {
				cells = append(cells, Blank())
			}
			t.Rows = append(t.Rows, Row{Cells: cells})
			return
		}
		cells = append(cells, meanCell(diff, seed, resamples, r.Sources))
		if r.Lengths != nil {
			for _, band := range thirds(diff, lengths) {
				cells = append(cells, meanCell(band, seed, resamples, r.Sources))
			}
		}
		t.Rows = append(t.Rows, Row{Cells: cells})
	}
	for i, a := range humans {
		for _, b := range humans[i+1:] {
			x, y, _ := r.common(a.Values, b.Values)
			row(a.label()+" – "+b.label(), "human", x, y, nil, false)
		}
	}
	people := meanOf(humans)
	for _, j := range judges {
		x, y, lengths := r.common(j.Values, people)
		row(j.label()+" – people", j.Published, x, y, lengths, true)
	}
	if len(t.Rows) == 0 {
		return nil, errors.New("ratings: there is one person and no judge; nothing can be compared")
	}
	return t, nil
}

func (r Rater) label() string {
	if r.Label != "" {
		return r.Label
	}
	return r.Name
}

// common returns the values of a and b on items that both have, with their lengths.
func (r *Ratings) common(a, b []*float64) (x, y, lengths []float64) {
	for i := range a {
		if i < len(b) && a[i] != nil && b[i] != nil {
			x = append(x, *a[i])
			y = append(y, *b[i])
			if i < len(r.Lengths) {
				lengths = append(lengths, r.Lengths[i])
			}
		}
	}
	return x, y, lengths
}

// meanOf averages the ratings that each item has.
func meanOf(raters []Rater) []*float64 {
	var out []*float64
	for i := range raters[0].Values {
		var sum float64
		n := 0
		for _, r := range raters {
			if i < len(r.Values) && r.Values[i] != nil {
				sum += *r.Values[i]
				n++
			}
		}
		if n == 0 {
			out = append(out, nil)
			continue
		}
		m := sum / float64(n)
		out = append(out, &m)
	}
	return out
}

// meanCell is the mean of x with its interval, or unmeasured.
func meanCell(x []float64, seed uint64, resamples int, sources []string) Cell {
	if len(x) == 0 {
		return Unmeasured()
	}
	iv := bootstrap.MeanCI(x, seed, resamples)
	c := Cell{Value: iv.Mean, N: iv.N, Sources: sources}
	if iv.N > 1 {
		c.Low, c.High = iv.Low, iv.High
	}
	return c
}

// thirds splits values into those of the shortest, middle and longest answers; equal
// lengths stay together.
func thirds(values, lengths []float64) [3][]float64 {
	sorted := slices.Sorted(slices.Values(lengths))
	var out [3][]float64
	if len(sorted) == 0 {
		return out
	}
	low, high := sorted[(len(sorted)-1)/3], sorted[(len(sorted)-1)*2/3]
	for i, v := range values {
		switch l := lengths[i]; {
		case l <= low:
			out[0] = append(out[0], v)
		case l <= high:
			out[1] = append(out[1], v)
		default:
			out[2] = append(out[2], v)
		}
	}
	return out
}
