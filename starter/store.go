package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// storeCommand is a command that needs the artifact store and no Temporal.
type storeCommand struct {
	connection activities.Connection
	embedded   embedded
	json       bool
}

func (s *storeCommand) flags(c *cobra.Command) {
	s.connection.StoreFlag(c.Flags())
	s.embedded.flags(c.Flags())
	c.Flags().BoolVar(&s.json, "json", false, "print JSON")
}

// with opens the store and calls f. When no store is named and the embedded one is not running, it is
// started for as long as f takes.
func (s *storeCommand) with(ctx context.Context, stderr io.Writer, f func(*artifact.Store) error) (err error) {
	if s.connection.Store == "" && os.Getenv("LONGALIGN_STORE") == "" {
		if ep, ok := s.embedded.running(); ok {
			if err := use(ep); err != nil {
				return err
			}
		} else if _, statErr := os.Stat(filepath.Join(s.embedded.data, "credentials.json")); statErr == nil {
			stack, err := s.embedded.startStack(ctx, stderr)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, stack.Stop()) }()
			if err := use(stack.Endpoint()); err != nil {
				return err
			}
		}
	}
	store, err := s.connection.OpenStore(ctx)
	if err != nil {
		return usageError{err}
	}
	return f(store)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func newListCommand() *cobra.Command {
	var s storeCommand
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the runs of the store, newest first",
		Example: "  starter list\n  starter list --store s3://bucket/longalign --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return listRuns(c.Context(), store, s.json, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	s.flags(c)
	return c
}

func listRuns(ctx context.Context, store *artifact.Store, asJSON bool, stdout, stderr io.Writer) error {
	var runs []*artifact.RunRecord
	unreadable := 0
	for r, err := range store.Runs(ctx) {
		if err != nil {
			fmt.Fprintln(stderr, "starter:", err)
			unreadable++
			continue
		}
		runs = append(runs, r)
	}
	newestFirst(runs)
	if asJSON {
		return printJSON(stdout, runs)
	}
	if len(runs) == 0 && unreadable > 0 {
		return fmt.Errorf("no record in %s can be read", store.URI())
	}
	if len(runs) == 0 {
		fmt.Fprintf(stderr, "no runs in %s yet; start one with starter run\n", store.URI())
		return nil
	}
	t := newTextTable(stdout, "ID", "ATTEMPT", "STATUS", "STARTED", "TOOK", "CELLS", "MADE", "REUSED")
	attempts := attemptsOf(runs)
	for _, r := range runs {
		made, reused := map[artifact.Ref]bool{}, map[artifact.Ref]bool{}
		for _, call := range r.Stages {
			if !call.Reused {
				made[call.Ref] = true
			}
		}
		for _, call := range r.Stages { // what one cell made others may have found
			if !made[call.Ref] {
				reused[call.Ref] = true
			}
		}
		took := "–"
		if !r.Finished.IsZero() {
			took = r.Finished.Sub(r.Started).Round(time.Second).String()
		}
		status := string(r.Status)
		if len(r.Failed) > 0 {
			status = fmt.Sprintf("%s, %s failed", status, plural(len(r.Failed), "cell"))
		}
		t.row(r.ID, attempts[r], status, r.Started.Local().Format("2006-01-02 15:04:05"), took, fmt.Sprint(len(r.Cells)), fmt.Sprint(len(made)), fmt.Sprint(len(reused)))
	}
	return t.flush()
}

// runRecord is the latest record of a run. Records of its other executions that cannot be read are told on stderr: one of them may be later.
func runRecord(ctx context.Context, store *artifact.Store, id string, stderr io.Writer) (*artifact.RunRecord, error) {
	run, err := store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, err := range store.Executions(ctx, id) {
		if err != nil {
			fmt.Fprintf(stderr, "starter: this is the execution of %s; the record of another cannot be read: %v\n", run.Started.Local().Format("2006-01-02 15:04:05"), err)
		}
	}
	return run, nil
}

// attemptsOf numbers the executions of each run by when they began, "2 of 3", where there is more than one.
func attemptsOf(runs []*artifact.RunRecord) map[*artifact.RunRecord]string {
	byID := map[string][]*artifact.RunRecord{}
	for _, r := range runs {
		byID[r.ID] = append(byID[r.ID], r)
	}
	numbers := map[*artifact.RunRecord]string{}
	for _, all := range byID {
		slices.SortStableFunc(all, func(a, b *artifact.RunRecord) int { return a.Started.Compare(b.Started) })
		for i, r := range all {
			if numbers[r] = "1"; len(all) > 1 {
				numbers[r] = fmt.Sprintf("%d of %d", i+1, len(all))
			}
		}
	}
	return numbers
}

func newExplainCommand() *cobra.Command {
	var s storeCommand
	c := &cobra.Command{
		Use:   "explain ID",
		Short: "Say for each result of a run whether it was a hit (reused) or a miss (made), and why",
		Long: `explain prints each result that the run used: a hit, found in the store and reused, or a miss, made by the run. For a miss it
names the most similar result that was there before, and the fields of the action key in which the two differ. Warnings tell what of a
result failed and why.`,
		Example: "  starter explain demo-3f2a91c07d1b",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return explain(c.Context(), store, args[0], s.json, c.OutOrStdout())
			})
		},
	}
	s.flags(c)
	return c
}

func explain(ctx context.Context, store *artifact.Store, id string, asJSON bool, stdout io.Writer) error {
	run, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	all, err := activities.Explain(ctx, store, run)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(stdout, all)
	}
	hits := 0
	for _, e := range all {
		verdict := "miss"
		if e.Hit {
			verdict = "hit "
			hits++
		}
		fmt.Fprintf(stdout, "%s  %-13s %s  %s\n", verdict, e.Stage, e.Ref, cellsLabel(e.Cells, run.Cells))
		if !e.Finished.IsZero() {
			fmt.Fprintf(stdout, "      made %s in %s by %s\n", e.Finished.Local().Format("2006-01-02 15:04:05"), e.Took.Round(time.Millisecond), e.By)
		}
		for _, w := range e.Warnings[:min(len(e.Warnings), 6)] {
			fmt.Fprintf(stdout, "      warning: %s\n", w)
		}
		if n := len(e.Warnings) - 6; n > 0 {
			fmt.Fprintf(stdout, "      and %d warnings more\n", n)
		}
		switch {
		case e.Problem != "":
			fmt.Fprintf(stdout, "      %s\n", e.Problem)
		case e.Hit:
		case e.Nearest == nil:
			fmt.Fprintf(stdout, "      the store held no earlier result to compare with\n")
		default:
			fmt.Fprintf(stdout, "      the nearest result there was is %s; it differs in\n", e.Nearest)
			for _, d := range e.Differs[:min(len(e.Differs), 6)] {
				fmt.Fprintf(stdout, "        %s: %s → %s\n", d.Path, activities.Show(d.Old), activities.Show(d.New))
			}
			if n := len(e.Differs) - 6; n > 0 {
				fmt.Fprintf(stdout, "        and %d more\n", n)
			}
			for _, b := range e.Because {
				fmt.Fprintf(stdout, "      %s\n", b)
			}
		}
	}
	fmt.Fprintf(stdout, "%d results: %d hits (reused), %d misses (made)\n", len(all), hits, len(all)-hits)
	for _, cell := range run.Cells {
		if why := run.Failed[cell]; why != "" {
			fmt.Fprintf(stdout, "cell %s failed: %s\n", cell, why)
		}
	}
	return nil
}

func cellsLabel(cells, all []string) string {
	switch {
	case len(cells) >= len(all) && len(all) > 1:
		return "all cells"
	case len(cells) > 3:
		return fmt.Sprintf("%s and %d more cells", strings.Join(cells[:2], ", "), len(cells)-2)
	}
	return strings.Join(cells, ", ")
}
