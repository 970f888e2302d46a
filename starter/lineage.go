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
	var cell, document string
	c := &cobra.Command{
		Use:   "lineage ID|REF",
		Short: "Lead from a cell to its documents, and from a document to the cells",
		Long: `lineage follows a run through the store, both ways.

  --cell NAME      the results the cell rests on, and the documents its model was trained and tested on
  --document NAME  the instructions about the document, the optimizer steps that trained on them, and how each cell scored
                   on them; the name of a file stands for all of its parts

A result, as explain prints it (tokens/3f2a91c07d1b/1), is followed one step each way, and to the runs that used it.`,
		Example: `  starter lineage demo-3f2a91c07d1b --cell packing/seed=1
  starter lineage demo-3f2a91c07d1b --document strings/builder.go
  starter lineage tokens/3f2a91c07d1b`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				if strings.Contains(args[0], "/") {
					if cell != "" || document != "" {
						return usageError{errors.New("--cell and --document belong to a run, not to a single result")}
					}
					return uses(c.Context(), store, args[0], s.json, c.OutOrStdout())
				}
				return trace(c.Context(), store, args[0], cell, document, s.json, c.OutOrStdout())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&cell, "cell", "", "only this cell of the run")
	c.Flags().StringVar(&document, "document", "", "only this document, or file of documents")
	return c
}

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
	if asJSON {
		return printJSON(stdout, traces)
	}
	found := false
	for _, t := range traces {
		fmt.Fprintf(stdout, "%s\n", t.Cell)
		if document == "" {
			printChain(stdout, t)
		}
		for _, d := range t.Documents {
			found = true
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
