package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func newGCCommand() *cobra.Command {
	var s storeCommand
	var o artifact.GCOptions
	var list bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Say what no run needs any more, or remove it",
		Long: `gc finds what no run needs: results and blobs that no run's record leads to, states of trainings that have
finished or saved a later one, and what interrupted uploads left behind. It only says so, unless --delete is given.

Everything younger than --older-than stays: what a run is about to use is young. Less than the longest a stage takes is not
safe while runs are under way.

A damaged run record or result may have named anything: while there is one, results and blobs stay and the exit code is 3.`,
		Example: `  starter gc
  starter gc --list
  starter gc --delete --older-than 720h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Keep <= 0 {
				return usageError{errors.New("--older-than must be positive")}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return collect(c.Context(), store, o, list, s.json, c.OutOrStdout())
			})
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&o.Delete, "delete", false, "remove it")
	c.Flags().BoolVar(&list, "list", false, "name every object")
	c.Flags().DurationVar(&o.Keep, "older-than", artifact.DefaultKeep, "leave everything that is younger")
	return c
}

// gcKinds says what kinds of garbage are, by the first part of their keys.
var gcKinds = map[string]string{
	"pointers": "pointers to checkpoints of trainings that have ended",
	"actions":  "results that no run used",
	"blobs":    "blobs that no result names, states of trainings among them",
	"claims":   "marks of writers that have ended",
}

func collect(ctx context.Context, store *artifact.Store, o artifact.GCOptions, list, asJSON bool, stdout io.Writer) error {
	report, err := store.GC(ctx, o)
	if err != nil {
		return err
	}
	garbage := map[string]artifact.GCCount{}
	for _, info := range report.Garbage {
		kind, _, _ := strings.Cut(info.Key, "/")
		n := garbage[kind]
		garbage[kind] = artifact.GCCount{Objects: n.Objects + 1, Bytes: n.Bytes + info.Size}
	}
	if asJSON {
		var problems []string
		for _, p := range report.Problems {
			problems = append(problems, p.Error())
		}
		v := map[string]any{"deleted": report.Deleted, "bytes": report.Bytes, "garbage": garbage, "interrupted_uploads": report.Leftovers,
			"stays": report.Stays, "running": report.Running, "problems": problems}
		if list {
			v["objects"] = report.Garbage
		}
		return errors.Join(printJSON(stdout, v), unreadable(report))
	}
	if list {
		for _, info := range report.Garbage {
			fmt.Fprintf(stdout, "%10s  %s  %s\n", size(info.Size), info.Modified.Local().Format("2006-01-02 15:04"), info.Key)
		}
		for _, l := range report.Leftovers {
			fmt.Fprintf(stdout, "%10s  %s  interrupted upload of %s\n", size(max(l.Size, 0)), l.Modified.Local().Format("2006-01-02 15:04"), l.Key)
		}
	}
	t := newTextTable(stdout, "", "OBJECTS", "SIZE", "")
	verb := "would go"
	if report.Deleted {
		verb = "removed"
	}
	for _, kind := range slices.Sorted(maps.Keys(garbage)) {
		t.row(verb, fmt.Sprint(garbage[kind].Objects), size(garbage[kind].Bytes), gcKinds[kind])
	}
	if n := len(report.Leftovers); n > 0 {
		var bytes int64
		for _, l := range report.Leftovers {
			bytes += max(l.Size, 0)
		}
		t.row(verb, fmt.Sprint(n), size(bytes), "interrupted uploads")
	}
	for _, why := range slices.Sorted(maps.Keys(report.Stays)) {
		t.row("stays", fmt.Sprint(report.Stays[why].Objects), size(report.Stays[why].Bytes), why)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, p := range report.Problems {
		fmt.Fprintf(stdout, "unreadable, so what it may need stays: %v\n", p)
	}
	if len(report.Running) > 0 {
		fmt.Fprintf(stdout, "under way: %s\n", strings.Join(report.Running, ", "))
	}
	switch n := len(report.Garbage) + len(report.Leftovers); {
	case n == 0:
		fmt.Fprintf(stdout, "nothing older than %s is unused\n", age(o.Keep))
	case report.Deleted:
		fmt.Fprintf(stdout, "%s removed, %s\n", plural(n, "object"), size(report.Bytes))
	default:
		fmt.Fprintf(stdout, "%s would go, %s; starter gc --delete removes them\n", plural(n, "object"), size(report.Bytes))
	}
	return unreadable(report)
}

// unreadable is the error of a collection that had to leave what damaged documents may need.
func unreadable(report *artifact.GCReport) error {
	if len(report.Problems) == 0 {
		return nil
	}
	return incompleteError{fmt.Errorf("%s cannot be read, and what it needs cannot be known, so no result and no blob may go: repair it with starter verify ID --repair, "+
		"import its run again from an export, or remove the document itself if its run is not wanted", plural(len(report.Problems), "document"))}
}

// age is a duration in days where it has whole ones.
func age(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return plural(int(d/(24*time.Hour)), "day")
	}
	return d.String()
}
