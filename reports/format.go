package reports

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Format is a way to print tables.
type Format string

// The formats of [Render].
const (
	Text     Format = "text"
	Markdown Format = "markdown"
	LaTeX    Format = "latex"
	CSV      Format = "csv"
	JSON     Format = "json"
	HTML     Format = "html"
)

// Formats lists all formats, for help texts.
func Formats() []Format { return []Format{Text, Markdown, LaTeX, CSV, JSON, HTML} }

// Extension returns the usual file name extension, with the dot.
func (f Format) Extension() string {
	switch f {
	case Text:
		return ".txt"
	case Markdown:
		return ".md"
	case LaTeX:
		return ".tex"
	}
	return "." + string(f)
}

// ParseFormat returns the format named s.
func ParseFormat(s string) (Format, error) {
	var names []string
	for _, f := range Formats() {
		if string(f) == s {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("format %q is not known; use one of %s", s, strings.Join(names, ", "))
}

// Render prints tables one after the other. JSON is always an array; CSV is one file
// with one header, a line for each cell.
func Render(f Format, tables ...*Table) ([]byte, error) {
	for _, t := range tables {
		if err := t.Validate(); err != nil {
			return nil, err
		}
	}
	switch f {
	case CSV:
		return renderCSV(tables)
	case JSON:
		b, err := json.MarshalIndent(tables, "", " ")
		return append(b, '\n'), err
	}
	var buf bytes.Buffer
	for i, t := range tables {
		if i > 0 {
			buf.WriteByte('\n')
		}
		var err error
		switch f {
		case Text:
			err = renderText(&buf, t)
		case Markdown:
			renderMarkdown(&buf, t)
		case LaTeX:
			renderLaTeX(&buf, t)
		case HTML:
			err = renderHTMLTable(&buf, t)
		default:
			_, err = ParseFormat(string(f))
		}
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return buf.Bytes(), nil
}

// Find returns the table named name.
func Find(tables []*Table, name string) (*Table, error) {
	var names []string
	for _, t := range tables {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("there is no table %q; there are: %s", name, strings.Join(names, ", "))
}

// parts is what all formats print of a cell, without marks.
type parts struct {
	main      string // value with its interval, a label, or "–"
	count     string // "n = 7 of 20" for an incomplete value
	published string // "6.21 (+0.34)" of the paper
}

// parts splits c for printing in column col.
func (c Cell) parts(col Column) parts {
	var p parts
	col = col.of(c)
	switch {
	case c.Text != "":
		p.main = strings.TrimSpace(c.Text)
	case !c.HasValue():
		p.main = "–"
	default:
		p.main = col.formatNumber(c.Value)
		if c.HasInterval() {
			abs := col
			abs.Signed = false
			p.main += " ± " + abs.formatNumber(c.HalfWidth())
		}
		if c.Incomplete {
			p.count = fmt.Sprintf("n = %d", c.N)
			if c.Wanted > c.N {
				p.count += fmt.Sprintf(" of %d", c.Wanted)
			}
		}
	}
	if c.Published != nil {
		pub := col
		pub.Signed = col.Signed
		p.published = pub.formatNumber(*c.Published)
		if d, ok := c.Difference(); ok {
			p.published += " (" + col.signed().formatNumber(d) + ")"
		}
	}
	return p
}

// Parts of the legend that formats with signs of their own replace.
const (
	bestLegend      = "Best values are marked where the paired test against every other row supports it."
	publishedLegend = "pub: the published value and, in parentheses, ours minus it."
)

// legend explains the signs that t uses: intervals, best values, published values, and
// how many samples are behind its cells.
func (t *Table) legend() []string {
	var interval, best, published, incomplete bool
	low, high := 0, 0
	for _, r := range t.Rows {
		for _, c := range r.Cells {
			interval = interval || c.HasInterval()
			best = best || c.Best
			published = published || c.Published != nil
			incomplete = incomplete || c.HasValue() && c.Incomplete // which says its own n
			if c.HasValue() && c.N > 0 && !c.Incomplete {
				if low == 0 || c.N < low {
					low = c.N
				}
				high = max(high, c.N)
			}
		}
	}
	var out []string
	if interval {
		out = append(out, "± covers the 95 % bootstrap interval.")
	}
	if best {
		out = append(out, bestLegend)
	}
	if published {
		out = append(out, publishedLegend)
	}
	switch {
	case high == 0:
	case low == high && incomplete:
		out = append(out, fmt.Sprintf("n = %s for each value that does not say its own.", Column{}.formatNumber(float64(high))))
	case low == high:
		out = append(out, fmt.Sprintf("n = %s for each value.", Column{}.formatNumber(float64(high))))
	default:
		out = append(out, fmt.Sprintf("n = %s to %s (each cell's n is in the csv, json and html forms).",
			Column{}.formatNumber(float64(low)), Column{}.formatNumber(float64(high))))
	}
	return out
}

// header returns the name and unit of a column.
func (c Column) header() string {
	if c.Unit == "" {
		return c.Name
	}
	return c.Name + " (" + c.Unit + ")"
}

// groups returns the runs of neighbouring columns with one group name; nil if the table
// has no groups.
func (t *Table) groups() []span {
	var out []span
	named := false
	for i, c := range t.Columns {
		named = named || c.Group != ""
		if n := len(out); n > 0 && c.Group != "" && out[n-1].Name == c.Group {
			out[n-1].Width++
			continue
		}
		out = append(out, span{c.Group, i, 1})
	}
	if !named {
		return nil
	}
	return out
}

// span is a header over Width columns from First.
type span struct {
	Name         string
	First, Width int
}
