package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

func newReportCommand() *cobra.Command {
	var s storeCommand
	var table, format, out string
	c := &cobra.Command{
		Use:   "report ID [ID2]",
		Short: "Print a run's tables, write its whole report, or compare two runs",
		Long: `report makes tables and figures from the stored artifacts alone: the same store gives the same bytes, on any
machine, with or without Temporal. With two runs it compares them cell by cell, and says which inputs, parameters and code differ.`,
		Example: `  starter report demo-3f2a91c07d1b
  starter report demo-3f2a91c07d1b --table method --format latex
  starter report demo-3f2a91c07d1b --out report
  starter report demo-3f2a91c07d1b demo-9b1e44d0a2c7`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if s.json {
				format = "json"
			}
			if _, err := reports.ParseFormat(format); err != nil {
				return usageError{err}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				run, err := finishedRun(c.Context(), store, args[0])
				if err != nil {
					return err
				}
				if len(args) == 2 {
					other, err := finishedRun(c.Context(), store, args[1])
					if err != nil {
						return err
					}
					return printComparison(c.Context(), store, run, other, format, c.OutOrStdout(), c.ErrOrStderr())
				}
				if out != "" {
					index, err := writeRunReport(c.Context(), store, run, out, c.ErrOrStderr())
					if err == nil {
						fmt.Fprintln(c.OutOrStdout(), index)
					}
					return err
				}
				return printRunTables(c.Context(), store, run, table, format, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&table, "table", "", "only this table")
	c.Flags().StringVar(&format, "format", "text", "text, markdown, latex, csv, json or html")
	c.Flags().StringVar(&out, "out", "", "write the report, its tables in all formats and its figures into this directory")
	return c
}

// finishedRun returns the record of a run that has tables.
func finishedRun(ctx context.Context, store *artifact.Store, id string) (*artifact.RunRecord, error) {
	run, err := store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	if run.Tables == nil {
		return nil, fmt.Errorf("run %s has no tables: it is %s; starter status %s says how far it is", run.ID, run.Status, run.ID)
	}
	return run, nil
}

// readStudy reads a run's study. When its tables are lost or damaged, the study is gathered from what the run's specification leads to.
// What could not be read is told on stderr; nil tells nobody, for where the study's own list of problems is shown.
func readStudy(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, stderr io.Writer) (*reports.Study, error) {
	study, err := activities.ReadStudy(ctx, store, *run.Tables, run)
	var corrupt *artifact.CorruptError
	if err != nil && (errors.Is(err, artifact.ErrNotFound) || errors.As(err, &corrupt)) {
		study, err = gatherStudy(ctx, store, run, err)
	}
	if err != nil {
		return nil, err
	}
	if stderr != nil {
		for _, p := range study.Problems {
			fmt.Fprintln(stderr, "starter: a part of the report could not be read:", p)
		}
	}
	return study, nil
}

// gatherStudy makes the study of a run whose tables are lost.
func gatherStudy(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, lost error) (*reports.Study, error) {
	calls, err := callsOf(ctx, store, run)
	if err != nil {
		return nil, errors.Join(lost, err)
	}
	for _, call := range calls {
		if call.Stage == run.Tables.Stage {
			return activities.GatherStudy(ctx, store, call, run, lost)
		}
	}
	return nil, fmt.Errorf("%w; nor does the run's specification lead to what its tables were made from: starter verify %s says what is missing", lost, run.ID)
}

// printComparison prints how two runs differ.
func printComparison(ctx context.Context, store *artifact.Store, a, b *artifact.RunRecord, format string, w, stderr io.Writer) error {
	f, err := reports.ParseFormat(format)
	if err != nil {
		return usageError{err}
	}
	var studies [2]*reports.Study
	for i, run := range []*artifact.RunRecord{a, b} {
		if studies[i], err = readStudy(ctx, store, run, stderr); err != nil {
			return err
		}
	}
	out, err := reports.Render(f, reports.Compare(studies[0], studies[1]).Tables()...)
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

// printRunTables prints one table of a run, or all.
func printRunTables(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, table, format string, w, stderr io.Writer) error {
	f, err := reports.ParseFormat(format)
	if err != nil {
		return usageError{err}
	}
	study, err := readStudy(ctx, store, run, stderr)
	if err != nil {
		return err
	}
	if f == reports.HTML && table == "" {
		page, err := reports.RenderReport(study)
		if err != nil {
			return err
		}
		_, err = w.Write(page)
		return err
	}
	tables := reports.Tables(study)
	if table != "" {
		t, err := reports.Find(tables, table)
		if err != nil {
			return usageError{err}
		}
		tables = []*reports.Table{t}
	}
	b, err := reports.Render(f, tables...)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// writeRunReport writes report.html, the tables in all formats and the figures into a directory, each file whole or not at
// all, and returns the report's path.
func writeRunReport(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, dir string, stderr io.Writer) (string, error) {
	study, err := readStudy(ctx, store, run, stderr)
	if err != nil {
		return "", err
	}
	files, err := reports.Files(study)
	if err != nil {
		return "", err
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return "", fmt.Errorf("report file %q leaves its directory", name)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		tmp := path + ".partial"
		if err := os.WriteFile(tmp, files[name], 0o644); err != nil {
			return "", errors.Join(err, os.Remove(tmp))
		}
		if err := os.Rename(tmp, path); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "report.html"), nil
}

func newGetCommand() *cobra.Command {
	var s storeCommand
	var out, cell string
	c := &cobra.Command{
		Use:   "get ID STAGE",
		Short: "Copy a stage's outputs out of the store: get ID checkpoint --out DIR",
		Example: `  starter get demo-3f2a91c07d1b checkpoint --cell packing/seed=1 --out model
  starter get demo-3f2a91c07d1b tokenizer --out tokenizer`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usageError{errors.New("--out says into which directory to copy")}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return get(c.Context(), store, args[0], args[1], cell, out, c.OutOrStdout())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&out, "out", "", "directory to copy into")
	c.Flags().StringVar(&cell, "cell", "", "the cell of a study, as starter explain names it")
	return c
}

func get(ctx context.Context, store *artifact.Store, id, stage, cell, dir string, stdout io.Writer) error {
	run, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	// The last use wins: a cell's tuned checkpoint comes after the base it started from.
	found := map[artifact.Ref]string{}
	var ref artifact.Ref
	for _, call := range run.Stages {
		if call.Stage == stage && (cell == "" || call.Cell == cell) && call.Role != "base" && call.Role != "pretrain" {
			ref = call.Ref
			found[ref] = call.Cell
		}
	}
	switch {
	case len(found) == 0:
		return usageError{fmt.Errorf("run %s used no %s of cell %q; starter explain %s lists what it used", id, stage, cell, id)}
	case len(found) > 1:
		var cells []string
		for _, c := range found {
			cells = append(cells, c)
		}
		slices.Sort(cells)
		return usageError{fmt.Errorf("run %s has %d different results of %s; choose one with --cell %s", id, len(found), stage, strings.Join(cells, " or --cell "))}
	}
	m, err := store.Current(ctx, ref)
	if err != nil {
		return err
	}
	for _, o := range m.Outputs {
		if !filepath.IsLocal(o.Name) {
			return fmt.Errorf("output %q leaves its directory", o.Name)
		}
		path := filepath.Join(dir, o.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := store.FetchBlob(ctx, o.Blob, path); err != nil {
			return err
		}
		fmt.Fprintln(stdout, path)
	}
	return nil
}
