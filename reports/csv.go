package reports

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
)

// csvHeader is one line a cell: everything that is known about it, ready to be filtered.
var csvHeader = []string{"table", "section", "row", "column", "unit", "value", "low", "high", "n", "failed", "truncated",
	"wanted", "incomplete", "best", "published", "difference", "text", "notes", "sources"}

// renderCSV writes RFC 4180 CSV with one line for each cell that is not a row's label.
// The label columns at the start of a row are joined by " / ". A value that was not
// measured is an empty field.
func renderCSV(tables []*Table) ([]byte, error) {
	var buf bytes.Buffer
	w := csv.NewWriter(&buf)
	w.UseCRLF = true
	records := [][]string{csvHeader}
	for _, t := range tables {
		for _, r := range t.Rows {
			label, first := r.label(t)
			for j, c := range r.Cells {
				if j < first {
					continue
				}
				col := t.Columns[j]
				name := col.Name
				if col.Group != "" {
					name = col.Group + " / " + name
				}
				marks := append(append(append(append([]string{}, t.Marks...), col.Marks...), r.Marks...), c.Marks...)
				rec := []string{t.Name, r.Section, label, name, col.Unit, "", "", "",
					count(c.N), count(c.Failed), count(c.Truncated), count(c.Wanted),
					strconv.FormatBool(c.Incomplete), strconv.FormatBool(c.Best), "", "", strings.TrimSpace(c.Text),
					strings.Join(marks, " "), strings.Join(c.Sources, " ")}
				if c.HasValue() {
					rec[5] = number(c.Value)
				}
				if c.HasInterval() {
					rec[6], rec[7] = number(c.Low), number(c.High)
				}
				if c.Published != nil {
					rec[14] = number(*c.Published)
				}
				if d, ok := c.Difference(); ok {
					rec[15] = number(d)
				}
				records = append(records, rec)
			}
		}
	}
	if err := w.WriteAll(records); err != nil {
		return nil, fmt.Errorf("csv: %w", err)
	}
	return buf.Bytes(), nil
}

// label joins the leading text cells of a row and says how many there are.
func (r Row) label(t *Table) (string, int) {
	var parts []string
	n := 0
	for ; n < len(r.Cells) && t.Columns[n].Text; n++ {
		if s := strings.TrimSpace(r.Cells[n].Text); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " / "), n
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// count prints nothing for 0: exact numbers have no samples.
func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
