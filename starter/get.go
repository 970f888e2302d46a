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

	"github.com/longalign/longalign-go/datasets/artifact"
)

func newGetCommand() *cobra.Command {
	var s storeCommand
	var out, cell, format string
	var torch torchFiles
	c := &cobra.Command{
		Use:   "get ID STAGE",
		Short: "Copy a stage's outputs out of the store: get ID checkpoint --out DIR",
		Long: `get copies a stage's outputs into a directory.

With --format thudm it writes the sequences of tokens as the paper's published torch trainer reads them: inputs, labels and their
sorted and packed forms as .npy, and the packs' boundaries as attention_masks_pack.json. It leaves out what that code leaves
out, and prints the counts. Its shuffle has no seed: --rows and --groups give the two orders, or they are drawn from --seed.`,
		Example: `  starter get demo-3f2a91c07d1b checkpoint --cell packing/seed=1 --out model
  starter get demo-3f2a91c07d1b tokenizer --out tokenizer
  starter get demo-3f2a91c07d1b tokens --format thudm --max-length 65536 --batch-size 8 --out data`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usageError{errors.New("--out says into which directory to copy")}
			}
			if format != "" && format != "thudm" {
				return usageError{fmt.Errorf("format %q is not known; use thudm or leave it out", format)}
			}
			if format != "" && args[1] != "tokens" {
				return usageError{fmt.Errorf("--format thudm is for tokens, not for %s", args[1])}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				m, err := used(c.Context(), store, args[0], args[1], cell)
				if err != nil {
					return err
				}
				if format != "" {
					return torch.write(c.Context(), store, m, out, c.OutOrStdout())
				}
				return get(c.Context(), store, m, out, c.OutOrStdout())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&out, "out", "", "directory to copy into")
	c.Flags().StringVar(&cell, "cell", "", "the cell of a study, as starter explain names it")
	c.Flags().StringVar(&format, "format", "", "thudm: tokens as .npy files for the published torch trainer")
	torch.flags(c)
	return c
}

// used is the manifest of a stage's result that a run used.
func used(ctx context.Context, store *artifact.Store, id, stage, cell string) (*artifact.Manifest, error) {
	run, err := store.Run(ctx, id)
	if err != nil {
		return nil, err
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
		return nil, usageError{fmt.Errorf("run %s used no %s of cell %q; starter explain %s lists what it used", id, stage, cell, id)}
	case len(found) > 1:
		var cells []string
		for _, c := range found {
			cells = append(cells, c)
		}
		slices.Sort(cells)
		return nil, usageError{fmt.Errorf("run %s has %d different results of %s; choose one with --cell %s", id, len(found), stage, strings.Join(cells, " or --cell "))}
	}
	return store.Current(ctx, ref)
}

func get(ctx context.Context, store *artifact.Store, m *artifact.Manifest, dir string, stdout io.Writer) error {
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
