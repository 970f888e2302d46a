package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// foundations prints what a table's values rest on.
func foundations(ctx context.Context, store *artifact.Store, id string, o lineageOptions, asJSON bool, stdout io.Writer) error {
	run, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	study, err := readStudy(ctx, store, run, nil)
	if err != nil {
		return err
	}
	if _, err := reports.Find(reports.Tables(study), o.table); err != nil {
		return usageError{err}
	}
	var found []*activities.Foundation
	a := &activities.Activities{Store: store}
	var rows, columns []string // that there are
	for _, c := range activities.TableCells(study) {
		if c.Table != o.table {
			continue
		}
		if !slices.Contains(rows, c.Row) {
			rows = append(rows, c.Row)
		}
		if !slices.Contains(columns, c.Column) {
			columns = append(columns, c.Column)
		}
		if !strings.Contains(c.Row, o.row) || !strings.Contains(c.Column, o.column) {
			continue
		}
		f, err := a.Rest(ctx, run, c)
		if err != nil {
			return err
		}
		found = append(found, f)
	}
	switch {
	case len(rows) == 0:
		return fmt.Errorf("no value of table %s was computed from this run's results", o.table)
	case len(found) == 0:
		return usageError{fmt.Errorf("table %s has no such value; its rows are %q, its columns %q", o.table, rows, columns)}
	case asJSON:
		return printJSON(stdout, found)
	}
	for _, f := range found {
		fmt.Fprintf(stdout, "%s, %s, %s = %s\n", f.Table, f.Row, f.Column, f.Printed)
		fmt.Fprintf(stdout, "  computed from  %s\n", strings.Join(f.Sources, ", "))
		for _, c := range f.Chain {
			fmt.Fprintf(stdout, "  %-14s %s", c.Stage, c.Ref)
			if from := refNames(c.Inputs); from != "" {
				fmt.Fprintf(stdout, "  from %s", from)
			}
			fmt.Fprintln(stdout)
		}
		if slices.ContainsFunc(f.Chain, func(c activities.TraceStage) bool {
			return c.Ref == f.Chain[len(f.Chain)-1].Ref && !maps.Equal(c.Inputs, f.Chain[len(f.Chain)-1].Inputs)
		}) {
			fmt.Fprintln(stdout, "  several cells came to equal answers and share what followed; the way of each is shown")
		}
		if f.Documents != nil {
			fmt.Fprintf(stdout, "  %s for training, %s held out\n", plural(f.Documents[datasets.SplitTrain], "document"), plural(f.Documents[datasets.SplitHeldOut], "document"))
		}
		for _, p := range f.Problems {
			fmt.Fprintf(stdout, "  not followed: %s\n", p)
		}
	}
	return nil
}

func refNames(inputs map[string]artifact.Ref) string {
	var from []string
	for _, role := range slices.Sorted(maps.Keys(inputs)) {
		from = append(from, fmt.Sprint(inputs[role]))
	}
	return strings.Join(from, ", ")
}

// printLeads says which tables a document bears on: a line a table. The values are in the JSON form.
func printLeads(w io.Writer, leads []activities.TableCell) {
	fmt.Fprintln(w, "bears on (--json lists each value)")
	for i := 0; i < len(leads); {
		var rows []string
		j := i
		for ; j < len(leads) && leads[j].Table == leads[i].Table; j++ {
			if row := leads[j].Row; !slices.Contains(rows, row) {
				rows = append(rows, row)
			}
		}
		more := ""
		if n := len(rows); n > 4 {
			rows, more = rows[:3], fmt.Sprintf(" and %d more", n-3)
		}
		fmt.Fprintf(w, "  %-12s %s in %s%s\n", leads[i].Table, plural(j-i, "value"), strings.Join(rows, "; "), more)
		i = j
	}
}

// samples prints what became of a benchmark's sample in each cell.
func samples(ctx context.Context, store *artifact.Store, id string, o lineageOptions, asJSON bool, stdout io.Writer) error {
	run, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	a := &activities.Activities{Store: store}
	var want func(string) bool
	if o.cell != "" {
		want = func(cell string) bool { return cell == o.cell }
	}
	found, problems, err := a.Samples(ctx, run, want, o.sample)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(stdout, map[string]any{"cells": found, "problems": problems})
	}
	for _, cell := range slices.Sorted(maps.Keys(found)) {
		for _, t := range found[cell] {
			fmt.Fprintf(stdout, "%s, %s, sample %s\n", cell, strings.TrimSuffix(t.Benchmark+" "+t.Dataset, " "), t.ID)
			for i, q := range t.Asked {
				fmt.Fprintf(stdout, "  asked     %s\n", oneLine(q))
				if i < len(t.Answered) {
					fmt.Fprintf(stdout, "  answered  %s\n", oneLine(t.Answered[i]))
				}
			}
			for _, j := range t.Judgments {
				if j.Failed != "" {
					fmt.Fprintf(stdout, "  judged    failed: %s\n", j.Failed)
					continue
				}
				fmt.Fprintf(stdout, "  judged    %.4g\n", j.Rating)
			}
			for _, metric := range slices.Sorted(maps.Keys(t.Values)) {
				fmt.Fprintf(stdout, "  score     %s %.4g\n", metric, t.Values[metric])
			}
			if t.Failed != "" {
				fmt.Fprintf(stdout, "  failed    %s\n", t.Failed)
			}
			fmt.Fprintf(stdout, "  from      %s by %s\n", t.Scores, refNames(t.Inputs))
		}
	}
	for _, p := range problems {
		fmt.Fprintf(stdout, "not followed: %s\n", p)
	}
	if len(found) == 0 {
		return fmt.Errorf("run %s has no benchmark with a sample %q", id, o.sample)
	}
	return nil
}

// oneLine is a model's text on one line, without what a terminal would obey.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.Join(strings.Fields(s), " "))
}
