package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/workflows"
)

func newReportCommand() *cobra.Command {
	var s storeCommand
	var table, format, out string
	c := &cobra.Command{
		Use:   "report ID [ID2]",
		Short: "Print a run's tables, write its whole report, or compare two runs",
		Long: `report makes tables and figures from the stored artifacts alone: the same store gives the same bytes, on any
machine, with or without Temporal. With two runs it compares them cell by cell, and says which inputs, parameters and code differ.

What is damaged or not finished is named, and the rest is reported all the same.

Exit code 0: the whole report. 3: parts of it are missing.`,
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
				run, err := runRecord(c.Context(), store, args[0], c.ErrOrStderr())
				if err != nil {
					return err
				}
				if len(args) == 2 {
					other, err := runRecord(c.Context(), store, args[1], c.ErrOrStderr())
					if err != nil {
						return err
					}
					return printComparison(c.Context(), store, run, other, format, c.OutOrStdout(), c.ErrOrStderr())
				}
				if out != "" {
					index, err := writeRunReport(c.Context(), store, run, out, c.ErrOrStderr())
					if index != "" {
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

// readStudy reads a run's study. When its tables are lost, damaged or of a newer version, or were not made yet, the study is gathered from
// the results that the run's record lists. What could not be read is told on stderr; nil tells nobody, for where the study's own list
// of problems is shown.
func readStudy(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, stderr io.Writer) (*reports.Study, error) {
	study, err := tablesStudy(ctx, store, run)
	if err != nil {
		return nil, err
	}
	if run.Tables == nil && len(study.Cells) == 0 {
		return nil, fmt.Errorf("%w, and none of its cells has results yet; starter status %s says how far it is", withoutTables(run), run.ID)
	}
	if stderr != nil {
		tellProblems(stderr, study)
	}
	return study, nil
}

func tellProblems(stderr io.Writer, study *reports.Study) {
	for _, p := range study.Problems {
		fmt.Fprintln(stderr, "starter: a part of the report could not be read:", p)
	}
}

func withoutTables(run *artifact.RunRecord) error {
	lost := fmt.Errorf("run %s has no tables: it is %s", run.ID, run.Status)
	if run.Error != nil {
		lost = fmt.Errorf("%w: %s", lost, run.Error.Message)
	}
	return lost
}

func tablesStudy(ctx context.Context, store *artifact.Store, run *artifact.RunRecord) (*reports.Study, error) {
	if run.Tables == nil {
		return gatherStudy(ctx, store, run, withoutTables(run))
	}
	study, err := activities.ReadStudy(ctx, store, *run.Tables, run)
	var corrupt *artifact.CorruptError
	var newer *artifact.NewerError
	if err != nil && (errors.Is(err, artifact.ErrNotFound) || errors.As(err, &corrupt) || errors.As(err, &newer)) {
		return gatherStudy(ctx, store, run, err)
	}
	return study, err
}

// gatherStudy makes the study of a run without tables that can be read.
func gatherStudy(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, lost error) (*reports.Study, error) {
	call, err := workflows.RecordedTables(run)
	if err != nil {
		return nil, fmt.Errorf("%w; nor does the run's specification say what its tables were made from: %w", lost, err)
	}
	return activities.GatherStudy(ctx, store, call, run, lost)
}

// whole is the error of a report that was made of what is left: nil when nothing is missing.
func whole(studies ...*reports.Study) error {
	n := 0
	for _, s := range studies {
		n += len(s.Problems)
	}
	if n == 0 {
		return nil
	}
	return incompleteError{fmt.Errorf("the report is incomplete: %s, named above and in the report", plural(n, "problem"))}
}

// printComparison prints how two runs differ. Of one without results it is known still what it was asked for.
func printComparison(ctx context.Context, store *artifact.Store, a, b *artifact.RunRecord, format string, w, stderr io.Writer) error {
	f, err := reports.ParseFormat(format)
	if err != nil {
		return usageError{err}
	}
	var studies [2]*reports.Study
	for i, run := range []*artifact.RunRecord{a, b} {
		if studies[i], err = tablesStudy(ctx, store, run); err != nil {
			return err
		}
		tellProblems(stderr, studies[i])
	}
	tables := reports.Compare(studies[0], studies[1]).Tables()
	if err := printTables(w, f, "Two runs compared", "starter report "+a.ID+" "+b.ID, slices.Concat(studies[0].Problems, studies[1].Problems), tables); err != nil {
		return err
	}
	return whole(studies[:]...)
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
		if _, err = w.Write(page); err != nil {
			return err
		}
		return whole(study)
	}
	tables := reports.Tables(study)
	if table != "" {
		t, err := reports.Find(tables, table)
		if err != nil {
			return usageError{err}
		}
		tables = []*reports.Table{t}
	}
	if err := printTables(w, f, study.Name, "starter report "+run.ID+" --table "+table, study.Problems, tables); err != nil {
		return err
	}
	return whole(study)
}

// printTables prints tables, in HTML as a page under a title with the problems and the command that prints it again.
func printTables(w io.Writer, f reports.Format, title, command string, problems []string, tables []*reports.Table) error {
	var out []byte
	var err error
	if f == reports.HTML {
		out, err = reports.RenderPage(title, command+" --format html", problems, tables...)
	} else {
		out, err = reports.Render(f, tables...)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

// writeRunReport writes report.html, the tables in all formats and the figures into a directory, each file whole or not at
// all, and returns the report's path, also beside the error of a report that is incomplete.
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
	return filepath.Join(dir, "report.html"), whole(study)
}
