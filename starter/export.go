package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// reportDir is where an export keeps the run's report.
const reportDir = "report"

func newExportCommand() *cobra.Command {
	var s storeCommand
	var out string
	c := &cobra.Command{
		Use:   "export ID --out DIR",
		Short: "Write a run as one directory: artifacts, report, description",
		Long: `export writes a run and everything it was made from into a directory: the run's record, manifests and blobs, laid out
as a store of their own, the report, ro-crate-metadata.json (RO-Crate 1.1) and CITATION.cff. Every blob is hashed on its way.

The directory can be read in place (--store DIR) and imported into another store (starter import DIR).`,
		Example: `  starter export demo-3f2a91c07d1b --out demo
  starter report demo-3f2a91c07d1b --store demo
  starter import demo --store s3://bucket/longalign`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usageError{errors.New("--out says into which directory to write")}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return export(c.Context(), store, args[0], out, s.json, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&out, "out", "", "directory to write into; must be empty or absent")
	return c
}

func export(ctx context.Context, store *artifact.Store, id, dir string, asJSON bool, stdout, stderr io.Writer) error {
	run, err := runRecord(ctx, store, id, stderr)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return usageError{fmt.Errorf("%s is not empty; choose another directory", dir)}
	}
	to, err := artifact.Open(ctx, dir)
	if err != nil {
		return err
	}
	report, err := copyRun(ctx, store, to, run, stderr)
	if err != nil {
		return err
	}
	if run.Tables != nil {
		if err := describeExport(ctx, to, run, dir); err != nil {
			return err
		}
	}
	return copied("exported to "+dir, run.ID, report, asJSON, stdout)
}

// describeExport writes the report, the crate's description and the citation, from the exported artifacts.
func describeExport(ctx context.Context, store *artifact.Store, run *artifact.RunRecord, dir string) error {
	study, err := readStudy(ctx, store, run, nil)
	if err != nil {
		return err
	}
	var incomplete incompleteError
	if _, err := writeRunReport(ctx, store, run, filepath.Join(dir, reportDir), nil); err != nil && !errors.As(err, &incomplete) {
		return err
	}
	files, err := reports.Files(study)
	if err != nil {
		return err
	}
	citation := reports.Citation{
		Dataset: true, Title: study.Title, Abstract: study.Description, Version: run.Code.Version, Commit: run.Code.Revision, Released: run.Finished,
		Authors: []reports.Person{{Family: "LongAlign-Go contributors"}}, Keywords: []string{"long context", "alignment", "large language models"},
	}
	if citation.Title == "" {
		citation.Title = run.Name
	}
	cff, err := citation.CFF()
	if err != nil {
		return err
	}
	described := map[string][]byte{"CITATION.cff": cff}
	for name, data := range files {
		described[reportDir+"/"+name] = data
	}
	records, err := fs.Glob(os.DirFS(dir), "runs/*/*.json")
	if err != nil {
		return err
	}
	for _, name := range records {
		if described[name], err = os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	crate := reports.NewCrate(study, func(digest string) string {
		hex := strings.TrimPrefix(digest, "sha256:")
		return "blobs/sha256/" + hex[:2] + "/" + hex
	}, described)
	crate.Authors = citation.Authors
	metadata, err := crate.JSON()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "CITATION.cff"), cff, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, reports.CrateFile), metadata, 0o644)
}

func newImportCommand() *cobra.Command {
	var s storeCommand
	c := &cobra.Command{
		Use:   "import DIR",
		Short: "Take exported runs into the store, verified",
		Long: `import copies the runs of an exported directory into the store. Every byte is hashed before it is stored. Results that the
store has already are left as they are.`,
		Example: "  starter import demo --store s3://bucket/longalign",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if info, err := os.Stat(filepath.Join(args[0], "runs")); err != nil || !info.IsDir() {
				return usageError{fmt.Errorf("%s holds no exported run: there is no directory runs in it", args[0])}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return importRuns(c.Context(), args[0], store, s.json, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	s.flags(c)
	return c
}

func importRuns(ctx context.Context, dir string, store *artifact.Store, asJSON bool, stdout, stderr io.Writer) error {
	from, err := artifact.Open(ctx, dir)
	if err != nil {
		return err
	}
	n := 0
	for run, err := range from.Runs(ctx) {
		if err != nil {
			return err
		}
		report, err := copyRun(ctx, from, store, run, stderr)
		if err != nil {
			return err
		}
		if err := copied("imported into "+store.URI(), run.ID, report, asJSON, stdout); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s holds no run", dir)
	}
	return nil
}

func copyRun(ctx context.Context, from, to *artifact.Store, run *artifact.RunRecord, stderr io.Writer) (*artifact.CopyReport, error) {
	status := newStatusLine(stderr)
	defer status.clear()
	return artifact.Copy(ctx, from, to, run, func(r artifact.CopyReport) {
		status.say(fmt.Sprintf("%s, %s, %s", plural(r.Manifests, "result"), plural(r.Blobs, "blob"), size(r.Bytes)))
	})
}

// copied prints what was copied, and fails when something was not.
func copied(verb, id string, r *artifact.CopyReport, asJSON bool, stdout io.Writer) error {
	if asJSON {
		if err := printJSON(stdout, map[string]any{"id": id, "report": r}); err != nil {
			return err
		}
	} else {
		for _, p := range r.Problems {
			fmt.Fprintf(stdout, "missing  %s: %s\n", p.Ref, p.Error)
		}
		there := ""
		if r.Present > 0 {
			there = fmt.Sprintf(", %d were there", r.Present)
		}
		fmt.Fprintf(stdout, "%s %s: %s, %s, %s%s\n", id, verb, plural(r.Manifests, "result"), plural(r.Blobs, "blob"), size(r.Bytes), there)
	}
	if len(r.Problems) > 0 {
		return fmt.Errorf("%s is incomplete: %s could not be copied", id, plural(len(r.Problems), "result"))
	}
	return nil
}
