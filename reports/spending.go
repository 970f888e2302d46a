package reports

import (
	"fmt"
	"slices"
)

// Charge is what results of one kind took: money, requests and tokens where a language model was asked, time where it ran. Results
// that an earlier run had made are counted as well: it is what the study's numbers took, whoever paid.
type Charge struct {
	// What names the work ("teacher", "tuning"), By the model that was asked or the device that computed.
	What string `json:"what"`
	By   string `json:"by,omitempty"`
	// Paid says that a language model behind an endpoint was asked.
	Paid    bool `json:"paid,omitempty"`
	Results int  `json:"results"`
	// Requests, tokens and USD are of language models. Forecast is what they were expected to cost.
	Requests     int64   `json:"requests,omitempty"`
	InputTokens  int64   `json:"input_tokens,omitempty"`
	OutputTokens int64   `json:"output_tokens,omitempty"`
	USD          float64 `json:"usd,omitempty"`
	Forecast     *Bounds `json:"forecast_usd,omitempty"`
	// Seconds are those of the device in trainings, and from begin to end elsewhere. ForecastSeconds is what those of
	// Forecasted results were expected to be, and TookSeconds what they came to.
	Seconds         float64  `json:"seconds,omitempty"`
	Forecasted      int      `json:"forecasted,omitempty"`
	ForecastSeconds float64  `json:"forecast_seconds,omitempty"`
	TookSeconds     float64  `json:"took_seconds,omitempty"`
	Sources         []string `json:"sources,omitempty"`
}

// Bounds are the ends of a forecast.
type Bounds struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Add counts o into c: another result of the same kind.
func (c *Charge) Add(o Charge) {
	c.Results += o.Results
	c.Requests += o.Requests
	c.InputTokens += o.InputTokens
	c.OutputTokens += o.OutputTokens
	c.USD += o.USD
	if o.Forecast != nil {
		if c.Forecast == nil {
			c.Forecast = &Bounds{}
		}
		c.Forecast = &Bounds{c.Forecast.Low + o.Forecast.Low, c.Forecast.High + o.Forecast.High}
	}
	c.Seconds += o.Seconds
	c.Forecasted += o.Forecasted
	c.ForecastSeconds += o.ForecastSeconds
	c.TookSeconds += o.TookSeconds
	c.Sources = union(c.Sources, o.Sources)
}

// manyHours is from how many seconds on a table of times is in hours.
const manyHours = 3 * 3600

// SpendingTable says what the study took: what teachers, judges and other models behind endpoints cost, forecast and actual, and how
// long trainings and everything else computed.
func SpendingTable(s *Study) *Table {
	unit, per, decimals := "s", 1.0, 1
	for _, c := range s.Charges {
		if c.Seconds > manyHours {
			unit, per, decimals = "h", 3600, 2
		}
	}
	measured := []string{NoteMeasured}
	t := &Table{
		Name: "spending", Title: "What the study took",
		Caption: "Of everything that the study's numbers rest on, results that earlier runs had made included. Time is the device's in trainings, and from begin to end elsewhere; " +
			"results of one kind may have been made at the same time. A forecast of time goes by the speed of an earlier training of such a model.",
		Columns: []Column{
			{Name: "Work", Text: true},
			{Name: "results"},
			{Name: "requests", Group: "language models"},
			{Name: "tokens in", Group: "language models"},
			{Name: "tokens out", Group: "language models"},
			{Name: "cost", Unit: "USD", Group: "language models", Decimals: 2},
			{Name: "forecast", Unit: "USD", Group: "language models", Decimals: 2},
			{Name: "took", Unit: unit, Group: "time", Decimals: decimals, Marks: measured},
			{Name: "forecast", Unit: unit, Group: "time", Decimals: decimals},
			{Name: "actual by forecast", Group: "time", Decimals: 2},
		},
		Footnotes: slices.Clone(s.Footnotes),
	}
	var total, paid Charge
	row := func(section string, c Charge) Row {
		label := c.What
		if c.By != "" {
			label += " · " + c.By
		}
		number := func(v float64, known bool) Cell {
			if !known {
				return Blank()
			}
			return Cell{Value: v, Sources: c.Sources}
		}
		r := Row{Section: section, Cells: []Cell{Label(label), number(float64(c.Results), true)}}
		r.Cells = append(r.Cells, number(float64(c.Requests), c.Paid), number(float64(c.InputTokens), c.Paid), number(float64(c.OutputTokens), c.Paid), number(c.USD, c.Paid))
		forecast := Blank()
		if c.Forecast != nil {
			col := Column{Decimals: 2}
			forecast = Label(col.formatNumber(c.Forecast.Low) + "–" + col.formatNumber(c.Forecast.High))
		}
		r.Cells = append(r.Cells, forecast, number(c.Seconds/per, c.Seconds > 0), number(c.ForecastSeconds/per, c.Forecasted > 0))
		if c.Forecasted > 0 && c.Forecasted < c.Results {
			id := fmt.Sprintf("forecast of %d", c.Forecasted)
			if !slices.ContainsFunc(t.Footnotes, func(f Footnote) bool { return f.ID == id }) {
				t.Footnotes = append(t.Footnotes, Footnote{id, fmt.Sprintf("of %d of the results: for the others there was nothing to go by when they began", c.Forecasted)})
			}
			r.Cells[len(r.Cells)-1].Marks = []string{id}
		}
		r.Cells = append(r.Cells, number(c.TookSeconds/max(c.ForecastSeconds, 1e-9), c.ForecastSeconds > 0))
		return r
	}
	for _, asked := range []bool{true, false} {
		section := "computed"
		if asked {
			section = "asked of language models"
		}
		for _, c := range s.Charges {
			if c.Paid != asked {
				continue
			}
			t.Rows = append(t.Rows, row(section, c))
			if total.Add(c); asked {
				paid.Add(c)
			}
		}
	}
	total.What, total.Paid = "all", paid.Results > 0
	t.Rows = append(t.Rows, row("together", total))
	return t
}
