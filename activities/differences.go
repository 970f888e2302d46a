package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// differences names what differs between a stored result and the same one made again, in words that lead to the sample or cell.
func differences(ctx context.Context, stored, again *artifact.Store, m, made *artifact.Manifest) ([]string, error) {
	switch m.Stage {
	case "scores":
		var a, b Scores
		if err := readOutput(ctx, stored, m, "scores.json", &a); err != nil {
			return nil, err
		}
		if err := readOutput(ctx, again, made, "scores.json", &b); err != nil {
			return nil, err
		}
		return compareScores(a, b)
	case "tables":
		a, err := rawOutput(ctx, stored, m, studyFile)
		if err != nil {
			return nil, err
		}
		b, err := rawOutput(ctx, again, made, studyFile)
		if err != nil {
			return nil, err
		}
		return compareStudies(a, b)
	}
	var out []string
	names := map[string]bool{}
	for _, o := range append(slices.Clone(m.Outputs), made.Outputs...) {
		if o.Volatile || names[o.Name] {
			continue
		}
		names[o.Name] = true
		was, _ := m.Output(o.Name)
		is, _ := made.Output(o.Name)
		if was.Blob.Digest != is.Blob.Digest {
			out = append(out, fmt.Sprintf("%s: stored %s, recomputed %s", o.Name, orAbsent(was.Blob.Digest), orAbsent(is.Blob.Digest)))
		}
	}
	return out, nil
}

func orAbsent(s string) string {
	if s == "" {
		return "absent"
	}
	return s
}

// compareScores names the samples whose scores differ.
func compareScores(stored, made Scores) ([]string, error) {
	a, err := json.Marshal(stored)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(made)
	if err != nil {
		return nil, err
	}
	sample := func(metric string, i int) string {
		for _, s := range []Scores{stored, made} {
			if set := s.Metrics[metric]; i < len(set.Samples) {
				return "sample " + set.Samples[i].ID
			}
		}
		return fmt.Sprintf("sample number %d", i)
	}
	var out []string
	for _, d := range artifact.Diff(a, b) {
		where := strings.TrimPrefix(d.Path, "metrics.")
		if metric, rest, ok := strings.Cut(where, ".samples["); ok {
			number, field, _ := strings.Cut(rest, "]")
			if i, err := strconv.Atoi(number); err == nil {
				where = fmt.Sprintf("%s of %s%s", metric, sample(metric, i), strings.ReplaceAll(field, ".", ", "))
			}
		}
		out = append(out, fmt.Sprintf("%s: stored %s, recomputed %s", where, brief(d.Old), brief(d.New)))
	}
	return out, nil
}

var studyCell = regexp.MustCompile(`^cells\[(\d+)\]\.?`)

// compareStudies names the values of a study that differ, and the table cells that print them. How results came about
// (the list of stages) is not part of the numbers.
func compareStudies(stored, made json.RawMessage) ([]string, error) {
	var a, b reports.Study
	if err := json.Unmarshal(stored, &a); err != nil {
		return nil, fmt.Errorf("stored study: %w", err)
	}
	if err := json.Unmarshal(made, &b); err != nil {
		return nil, fmt.Errorf("recomputed study: %w", err)
	}
	var out []string
	for _, d := range artifact.Diff(stored, made) {
		if d.Path == "stages" || strings.HasPrefix(d.Path, "stages[") || strings.Contains(d.Path, "ources[") {
			continue
		}
		where := studyCell.ReplaceAllStringFunc(d.Path, func(s string) string {
			i, err := strconv.Atoi(studyCell.FindStringSubmatch(s)[1])
			if err != nil || i >= len(a.Cells) {
				return s
			}
			return fmt.Sprintf("cell %s/seed=%d: ", a.Cells[i].Method, a.Cells[i].Seed)
		})
		out = append(out, fmt.Sprintf("%s: stored %s, recomputed %s", where, brief(d.Old), brief(d.New)))
	}
	if len(out) == 0 {
		return nil, nil
	}
	return append(out, tableDifferences(&a, &b)...), nil
}

// tableDifferences names the printed cells that differ.
func tableDifferences(a, b *reports.Study) []string {
	var out []string
	made := reports.Tables(b)
	for _, t := range reports.Tables(a) {
		other, err := reports.Find(made, t.Name)
		if err != nil {
			out = append(out, fmt.Sprintf("table %s: there is none when recomputed", t.Name))
			continue
		}
		if len(t.Rows) != len(other.Rows) || len(t.Columns) != len(other.Columns) {
			out = append(out, fmt.Sprintf("table %s: stored %d × %d, recomputed %d × %d", t.Name, len(t.Rows), len(t.Columns), len(other.Rows), len(other.Columns)))
			continue
		}
		for i, row := range t.Rows {
			for j, cell := range row.Cells {
				if j >= len(other.Rows[i].Cells) || j >= len(t.Columns) {
					continue
				}
				c := other.Rows[i].Cells[j]
				if cell.Text == c.Text && cell.Value == c.Value && cell.N == c.N && cell.Failed == c.Failed && cell.Incomplete == c.Incomplete {
					continue
				}
				out = append(out, fmt.Sprintf("table %s, row %q, column %q: stored %s, recomputed %s", t.Name, row.Cells[0].Text, t.Columns[j].Name, printed(cell), printed(c)))
			}
		}
	}
	return out
}

func printed(c reports.Cell) string {
	if c.Text != "" {
		return strconv.Quote(c.Text)
	}
	if !c.HasValue() {
		return "–"
	}
	if c.N == 0 { // counted, not estimated
		return fmt.Sprintf("%.6g", c.Value)
	}
	return fmt.Sprintf("%.6g (n = %d)", c.Value, c.N)
}

// brief cuts a value for a message.
func brief(raw json.RawMessage) string {
	s := string(raw)
	if s == "" {
		return "absent"
	}
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "…"
	}
	return s
}
