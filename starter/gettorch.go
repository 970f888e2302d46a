package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/thudm"
	"github.com/longalign/longalign-go/datasets/tokens"
)

// torchFiles are the flags of get --format thudm.
type torchFiles struct {
	options      thudm.Options
	rows, groups string
}

func (t *torchFiles) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&t.options.MaxLength, "max-length", 65536, "length of rows and packs (--format thudm)")
	f.IntVar(&t.options.BatchSize, "batch-size", 8, "packs or rows that all devices take at once (--format thudm)")
	f.Uint64Var(&t.options.Seed, "seed", 0, "seed of the orders that are not given (--format thudm)")
	f.StringVar(&t.rows, "rows", "", "file with the order of the sequences, one number a line (--format thudm)")
	f.StringVar(&t.groups, "groups", "", "file with the order of the sorted groups, one number a line (--format thudm)")
}

// write writes the sequences of m into dir, which must be empty or absent, whole or not at all.
func (t *torchFiles) write(ctx context.Context, store *artifact.Store, m *artifact.Manifest, dir string, stdout io.Writer) (err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return usageError{fmt.Errorf("%s is not empty; name a new directory", dir)}
	}
	for file, order := range map[string]*[]int32{t.rows: &t.options.Rows, t.groups: &t.options.Groups} {
		if file == "" {
			continue
		}
		if *order, err = readOrder(file); err != nil {
			return err
		}
	}
	blobs := activities.TokenBlobs(m)
	if len(blobs) == 0 {
		return fmt.Errorf("the tokens %s have no sequences", m.Key)
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".partial")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(partial)) }()
	var shards []*tokens.Shard
	for k, blob := range blobs {
		path := filepath.Join(partial, "tokens-"+strconv.Itoa(k))
		if err := store.FetchBlob(ctx, blob, path); err != nil {
			return err
		}
		data, unmap, err := tokens.Map(path)
		if err != nil {
			return err
		}
		defer unmap()
		if err := os.Remove(path); err != nil { // it stays mapped
			return err
		}
		shard, err := tokens.Open(data)
		if err != nil {
			return fmt.Errorf("tokens %s: %w", m.Key, err)
		}
		shards = append(shards, shard)
	}
	written, err := thudm.WriteDirectory(func(name string) (io.WriteCloser, error) {
		return os.Create(filepath.Join(partial, name))
	}, tokens.NewSet(shards...), t.options)
	if err != nil {
		return err
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return err
	}
	if err := os.Rename(partial, dir); err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(written)
}

// readOrder reads one number a line.
func readOrder(file string) ([]int32, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	order := []int32{}
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		n, err := strconv.ParseInt(strings.TrimSpace(scan.Text()), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %q is not the number of a sequence or group; write one number a line", file, len(order)+1, scan.Text())
		}
		order = append(order, int32(n))
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", file, len(order)+1, err)
	}
	return order, nil
}
