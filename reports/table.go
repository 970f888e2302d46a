package reports

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Direction says which values of a column are better.
type Direction string

// Directions of a column. Only a column with a direction can have a best value.
const (
	Neither Direction = ""
	Higher  Direction = "higher"
	Lower   Direction = "lower"
)

// Table is a table of results that every [Format] can print.
type Table struct {
	// Name is the short name that commands and file names use, such as "training".
	Name string `json:"name"`
	// Title stands above the table, Caption below it.
	Title   string `json:"title"`
	Caption string `json:"caption,omitempty"`
	// Columns describe the cells of every row, in order.
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
	// Marks are the IDs of footnotes that hold for the whole table.
	Marks []string `json:"marks,omitempty"`
	// Footnotes define the IDs used in Marks. Standard IDs (see [StandardFootnotes])
	// need no definition here. Definitions that nothing uses are not printed.
	Footnotes []Footnote `json:"footnotes,omitempty"`
}

// Column describes one column.
type Column struct {
	Name string `json:"name"`
	// Group is printed once above neighbouring columns that have the same one.
	Group string `json:"group,omitempty"`
	// Unit is printed below the name: "nats/token", "%", "s".
	Unit string `json:"unit,omitempty"`
	// Text marks a column of labels: left-aligned, no numbers.
	Text bool `json:"text,omitempty"`
	// Decimals is the number of digits after the point.
	Decimals int `json:"decimals"`
	// Signed prints a plus before positive values: the column holds differences.
	Signed bool      `json:"signed,omitempty"`
	Better Direction `json:"better,omitempty"`
	Marks  []string  `json:"marks,omitempty"`
}

// Row is one row; it has a cell for every column.
type Row struct {
	// Section is printed as a heading before the first row that has it.
	Section string `json:"section,omitempty"`
	// Minor rows give detail below the row they belong to, such as single seeds.
	Minor bool     `json:"minor,omitempty"`
	Cells []Cell   `json:"cells"`
	Marks []string `json:"marks,omitempty"`
}

// Cell is one value and everything known about it. The zero Cell is the number 0; use
// [Label], [Blank], [Unmeasured] or [Number] to say what is meant.
type Cell struct {
	// Text is printed instead of a number when it is not empty.
	Text  string
	Value float64
	// N counts the samples behind Value, Failed those without a score (never counted
	// as zeros), Truncated those whose input or output was cut. Wanted is how many
	// there should be; 0 means N. N is 0 for exact numbers.
	N, Failed, Truncated, Wanted int
	// Low and High bound the 95 % interval; equal means that there is none.
	Low, High float64
	// Incomplete marks a value that is missing (N = 0) or not final (N > 0).
	Incomplete bool
	// Best marks the best value of a column, set only when the paired test against
	// the other rows supports it.
	Best bool
	// Marks are footnote IDs.
	Marks []string
	// Sources are references to the artifacts the value was computed from: a stage's
	// manifest ("scores/<key>") or a blob ("sha256:<hex>").
	Sources []string
	// Published is the paper's value for this cell.
	Published *float64
	// Decimals overrides the column's, where rows hold different quantities.
	Decimals *int
}

// Label returns a text cell.
func Label(text string) Cell { return Cell{Text: text} }

// Blank returns a cell that prints nothing, where a number would make no sense.
func Blank() Cell { return Cell{Text: " "} }

// Unmeasured returns the cell of a value nobody measured. It prints as "–".
func Unmeasured() Cell { return Cell{Incomplete: true, Marks: []string{NoteUnmeasured}} }

// Number returns a cell that is exact: a count or a sum, not an estimate.
func Number(v float64) Cell { return Cell{Value: v} }

// HasValue reports whether the cell holds a number of ours.
func (c Cell) HasValue() bool { return c.Text == "" && (!c.Incomplete || c.N > 0) }

// lacking reports whether the cell was measured in part: samples are missing that there should be, or all of them failed. A cell that
// nobody set out to measure is not lacking.
func (c Cell) lacking() bool { return c.Text == "" && c.Incomplete && (c.N > 0 || c.Failed > 0) }

// Incomplete names the values of a study's tables that were measured in part only, and so are not final.
func Incomplete(s *Study) []string {
	var out []string
	for _, t := range Tables(s) {
		for _, r := range t.Rows {
			for i, c := range r.Cells {
				if c.lacking() {
					out = append(out, fmt.Sprintf("%s, %s, %s", t.Name, r.Cells[0].Text, t.Columns[i].Name))
				}
			}
		}
	}
	return out
}

// HasInterval reports whether the cell has a 95 % interval.
func (c Cell) HasInterval() bool { return c.HasValue() && c.Low != c.High }

// HalfWidth returns the larger distance from the value to an end of its interval, so
// that value ± half width covers the interval.
func (c Cell) HalfWidth() float64 { return max(c.High-c.Value, c.Value-c.Low) }

// Difference returns ours minus the published value, if both are there and ours is final, rounded to 1e-12
// so that 6.21 − 5.76 is 0.45 in machine-readable forms too.
func (c Cell) Difference() (float64, bool) {
	if c.Published == nil || !c.HasValue() || c.Incomplete {
		return 0, false
	}
	return math.Round((c.Value-*c.Published)*1e12) / 1e12, true
}

// cellJSON is the exchange form of a Cell: no number where none was measured.
type cellJSON struct {
	Text       string   `json:"text,omitempty"`
	Value      *float64 `json:"value,omitempty"`
	N          int      `json:"n,omitempty"`
	Failed     int      `json:"failed,omitempty"`
	Truncated  int      `json:"truncated,omitempty"`
	Wanted     int      `json:"wanted,omitempty"`
	Low        *float64 `json:"low,omitempty"`
	High       *float64 `json:"high,omitempty"`
	Incomplete bool     `json:"incomplete,omitempty"`
	Best       bool     `json:"best,omitempty"`
	Marks      []string `json:"marks,omitempty"`
	Sources    []string `json:"sources,omitempty"`
	Published  *float64 `json:"published,omitempty"`
	Difference *float64 `json:"difference,omitempty"`
	Decimals   *int     `json:"decimals,omitempty"`
}

// MarshalJSON writes no "value" for a cell without one, so that a reader cannot take a
// missing measurement for zero.
func (c Cell) MarshalJSON() ([]byte, error) {
	j := cellJSON{Text: c.Text, N: c.N, Failed: c.Failed, Truncated: c.Truncated, Wanted: c.Wanted,
		Incomplete: c.Incomplete, Best: c.Best, Marks: c.Marks, Sources: c.Sources, Published: c.Published, Decimals: c.Decimals}
	if c.HasValue() {
		j.Value = &c.Value
	}
	if c.HasInterval() {
		j.Low, j.High = &c.Low, &c.High
	}
	if d, ok := c.Difference(); ok {
		j.Difference = &d
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Cell) UnmarshalJSON(b []byte) error {
	var j cellJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*c = Cell{Text: j.Text, N: j.N, Failed: j.Failed, Truncated: j.Truncated, Wanted: j.Wanted,
		Incomplete: j.Incomplete, Best: j.Best, Marks: j.Marks, Sources: j.Sources, Published: j.Published, Decimals: j.Decimals}
	if j.Value != nil {
		c.Value = *j.Value
	}
	if j.Low != nil && j.High != nil {
		c.Low, c.High = *j.Low, *j.High
	}
	return nil
}

// Validate reports the first thing that would make a renderer print nonsense: a row of
// the wrong length, a value that is not finite, a footnote that is not defined.
func (t *Table) Validate() error {
	if t.Name == "" {
		return fmt.Errorf("table %q has no name", t.Title)
	}
	notes := t.definitions()
	check := func(marks []string, where string) error {
		for _, id := range marks {
			if _, ok := notes[id]; !ok {
				return fmt.Errorf("table %s: %s has footnote %q, which is neither standard nor defined in the table", t.Name, where, id)
			}
		}
		return nil
	}
	if err := check(t.Marks, "the title"); err != nil {
		return err
	}
	for _, c := range t.Columns {
		if err := check(c.Marks, fmt.Sprintf("column %q", c.Name)); err != nil {
			return err
		}
	}
	for i, r := range t.Rows {
		if len(r.Cells) != len(t.Columns) {
			return fmt.Errorf("table %s: row %d has %d cells, the table has %d columns", t.Name, i+1, len(r.Cells), len(t.Columns))
		}
		if err := check(r.Marks, fmt.Sprintf("row %d", i+1)); err != nil {
			return err
		}
		for j, c := range r.Cells {
			where := fmt.Sprintf("row %d, column %q", i+1, t.Columns[j].Name)
			if err := check(c.Marks, where); err != nil {
				return err
			}
			for _, v := range []float64{c.Value, c.Low, c.High} {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return fmt.Errorf("table %s: %s holds %v; a value that could not be computed must be marked incomplete", t.Name, where, v)
				}
			}
			if c.HasInterval() && (c.Low > c.Value || c.High < c.Value) {
				return fmt.Errorf("table %s: %s has value %v outside its interval [%v, %v]", t.Name, where, c.Value, c.Low, c.High)
			}
		}
	}
	return nil
}

// formatNumber prints v with the column's digits, thousands separated by commas.
func (c Column) formatNumber(v float64) string {
	s := strconv.FormatFloat(math.Abs(v), 'f', c.Decimals, 64)
	whole, frac, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if frac != "" {
		whole += "." + frac
	}
	zero := strings.Trim(s, "0.") == "" // −0.00 says more than was measured
	switch {
	case v < 0 && !zero:
		return "−" + whole
	case v > 0 && !zero && c.Signed:
		return "+" + whole
	}
	return whole
}

// of is the column as cell prints in it.
func (c Column) of(cell Cell) Column {
	if cell.Decimals != nil {
		c.Decimals = *cell.Decimals
	}
	return c
}

// signed is c printing plus signs.
func (c Column) signed() Column { c.Signed = true; return c }
