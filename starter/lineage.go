package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

func newLineageCommand() *cobra.Command {
	var s storeCommand
	var o lineageOptions
	c := &cobra.Command{
		Use:   "lineage ID|REF",
		Short: "Lead from a table's cell to the documents, and from a document to the cells",
		Long: `lineage follows a run through the store, both ways.

  --cell NAME      the results that a cell of the study rests on, and the documents its model was trained and tested on
  --table NAME     the results that a table's values were computed from, down to the documents; --row and --column choose among them
  --document NAME  the instructions about the document, the optimizer steps that trained on them, how each cell scored on them,
                   and the values of the report that it bears on; the name of a file stands for all of its parts
  --sample ID      a benchmark's sample in each cell: question, answer, judgments, scores

A result, as explain prints it (tokens/3f2a91c07d1b/1), is followed one step each way, and to the runs that used it.`,
		Example: `  starter lineage demo-3f2a91c07d1b --cell packing/seed=1
  starter lineage demo-3f2a91c07d1b --table method --row naive --column all
  starter lineage demo-3f2a91c07d1b --document strings/builder.go
  starter lineage tokens/3f2a91c07d1b`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.table == "" && (o.row != "" || o.column != "") {
				return usageError{errors.New("--row and --column choose among the values of a --table")}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				if strings.Contains(args[0], "/") {
					if o != (lineageOptions{}) {
						return usageError{errors.New("the flags belong to a run, not to a single result")}
					}
					return uses(c.Context(), store, args[0], s.json, c.OutOrStdout())
				}
				switch {
				case o.table != "":
					return foundations(c.Context(), store, args[0], o, s.json, c.OutOrStdout())
				case o.sample != "":
					return samples(c.Context(), store, args[0], o, s.json, c.OutOrStdout())
				}
				return trace(c.Context(), store, args[0], o.cell, o.document, s.json, c.OutOrStdout())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&o.cell, "cell", "", "only this cell of the run")
	c.Flags().StringVar(&o.document, "document", "", "only this document, or file of documents")
	c.Flags().StringVar(&o.table, "table", "", "the values of this table")
	c.Flags().StringVar(&o.row, "row", "", "with --table: only rows whose name contains this")
	c.Flags().StringVar(&o.column, "column", "", "with --table: only columns whose name contains this")
	c.Flags().StringVar(&o.sample, "sample", "", "this sample of a benchmark")
	return c
}

// lineageOptions say what is followed.
type lineageOptions struct{ cell, document, table, row, column, sample string }

func uses(ctx context.Context, store *artifact.Store, name string, asJSON bool, stdout io.Writer) error {
	u, err := activities.UsesOf(ctx, store, name)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(stdout, u)
	}
	fmt.Fprintln(stdout, u.Ref)
	for _, role := range slices.Sorted(maps.Keys(u.Inputs)) {
		fmt.Fprintf(stdout, "  from  %-28s %s\n", role, u.Inputs[role])
	}
	for _, ref := range u.By {
		fmt.Fprintf(stdout, "  for   %s\n", ref)
	}
	for _, run := range slices.Sorted(maps.Keys(u.Runs)) {
		fmt.Fprintf(stdout, "  run   %s: %s\n", run, cellsLabel(u.Runs[run], nil))
	}
	return nil
}

func trace(ctx context.Context, store *artifact.Store, id, cell, document string, asJSON bool, stdout io.Writer) error {
	run, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	if cell != "" && !slices.Contains(run.Cells, cell) {
		return usageError{fmt.Errorf("run %s has no cell %q; it has %s", id, cell, strings.Join(run.Cells, ", "))}
	}
	only := func(name string) func(string) bool {
		if name == "" {
			return nil
		}
		return func(s string) bool { return s == name }
	}
	a := &activities.Activities{Store: store}
	traces, err := a.Trace(ctx, run, only(cell), only(document))
	if err != nil {
		return err
	}
	var leads []activities.TableCell
	if document != "" && run.Tables != nil {
		// A run whose tables cannot be read still tells of the document.
		if study, err := readStudy(ctx, store, run, nil); err == nil {
			leads = activities.LeadsTo(run, study, traces)
		}
	}
	if asJSON {
		if document == "" {
			return printJSON(stdout, traces)
		}
		return printJSON(stdout, map[string]any{"cells": traces, "leads_to": leads})
	}
	found := slices.ContainsFunc(traces, func(t activities.CellTrace) bool { return len(t.Documents) > 0 })
	for _, t := range traces {
		if document != "" && len(t.Documents)+len(t.Problems) == 0 {
			continue
		}
		fmt.Fprintf(stdout, "%s\n", t.Cell)
		if document == "" {
			printChain(stdout, t)
		}
		for _, d := range t.Documents {
			// A study without a question about a document would list thousands: they are counted above.
			if document != "" || cell != "" {
				printDocument(stdout, d)
			}
		}
		for _, p := range t.Problems {
			fmt.Fprintf(stdout, "  not followed: %s\n", p)
		}
	}
	if document != "" && !found {
		return fmt.Errorf("run %s has no document %q; starter lineage %s --cell CELL lists them", id, document, id)
	}
	if len(leads) > 0 {
		printLeads(stdout, leads)
	}
	return nil
}

func printChain(w io.Writer, t activities.CellTrace) {
	for _, c := range t.Chain {
		name := c.Stage
		if c.Role != "" {
			name += " (" + c.Role + ")"
		}
		var from []string
		for _, role := range slices.Sorted(maps.Keys(c.Inputs)) {
			from = append(from, fmt.Sprint(c.Inputs[role]))
		}
		fmt.Fprintf(w, "  %-24s %s", name, c.Ref)
		if len(from) > 0 {
			fmt.Fprintf(w, "  from %s", strings.Join(from, ", "))
		}
		fmt.Fprintln(w)
	}
	var trained, tested, instances int
	for _, d := range t.Documents {
		if d.Split == datasets.SplitHeldOut {
			tested++
		} else {
			trained++
		}
		for _, i := range d.Instances {
			if len(i.Steps) > 0 {
				instances++
			}
		}
	}
	fmt.Fprintf(w, "  %s for training (%s trained on), %s held out\n", plural(trained, "document"), plural(instances, "instruction"), plural(tested, "document"))
}

func printDocument(w io.Writer, d activities.DocumentTrace) {
	fmt.Fprintf(w, "  %s (%s)", d.Document, d.Split)
	if len(d.PretrainSteps) > 0 {
		fmt.Fprintf(w, "  pre-trained in %s", steps(d.PretrainSteps))
	}
	fmt.Fprintln(w)
	for _, i := range d.Instances {
		fmt.Fprintf(w, "    instruction %d, %s", i.ID, i.Task)
		switch {
		case i.Failed:
			fmt.Fprint(w, ": the sample failed")
		case len(i.Scores) > 0:
			var scores []string
			for _, metric := range slices.Sorted(maps.Keys(i.Scores)) {
				scores = append(scores, fmt.Sprintf("%s %.4g", metric, i.Scores[metric]))
			}
			fmt.Fprintf(w, ": %s", strings.Join(scores, ", "))
		case len(i.Steps) > 0:
			fmt.Fprintf(w, ": trained in %s", steps(i.Steps))
		default:
			fmt.Fprint(w, ": not used")
		}
		if i.Truncated {
			fmt.Fprint(w, " (truncated)")
		}
		fmt.Fprintln(w)
	}
}

func steps(list []int) string {
	noun := "step"
	if len(list) > 1 {
		noun = "steps"
	}
	var out []string
	for _, s := range list[:min(len(list), 8)] {
		out = append(out, fmt.Sprint(s))
	}
	if n := len(list) - 8; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return noun + " " + strings.Join(out, ", ")
}
