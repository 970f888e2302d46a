package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

func (d *directory) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := checkPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		d.walk(ctx, prefix, func(name string, info fs.FileInfo, err error) bool {
			if err == nil && strings.HasPrefix(path.Base(name), ".") {
				return true
			}
			if err != nil {
				return yield(Info{}, err)
			}
			return yield(Info{Key: name, Size: info.Size(), Modified: info.ModTime().UTC()}, nil)
		})
	}
}

func (d *directory) Leftovers(ctx context.Context, before time.Time) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		d.walk(ctx, "", func(name string, info fs.FileInfo, err error) bool {
			if err != nil {
				return yield(Leftover{}, err)
			}
			if !strings.HasPrefix(path.Base(name), tempPrefix) || !info.ModTime().Before(before) {
				return true
			}
			return yield(Leftover{Key: name, ID: name, Size: info.Size(), Modified: info.ModTime().UTC()}, nil)
		})
	}
}

func (d *directory) Discard(ctx context.Context, l Leftover) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !strings.HasPrefix(path.Base(l.ID), tempPrefix) {
		return fmt.Errorf("discard %s: not a temporary file", l.ID)
	}
	root, err := d.open(false)
	if err != nil {
		return err
	}
	if err := root.Remove(l.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard %s: %w", l.ID, absent(err))
	}
	return nil
}

// walk visits every file whose path begins with prefix, in byte order of paths, until visit returns false.
func (d *directory) walk(ctx context.Context, prefix string, visit func(string, fs.FileInfo, error) bool) {
	root, err := d.open(false)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			visit("", nil, err)
		}
		return
	}
	start := "."
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		start = prefix[:i]
	}
	var descend func(dir string) bool
	descend = func(dir string) bool {
		entries, err := fs.ReadDir(root.FS(), dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return true // nothing there, or no longer
		} else if err != nil {
			visit(dir, nil, fmt.Errorf("list %s: %w", dir, absent(err)))
			return false
		}
		// "a-b" comes before "a/b" among keys, though "a" comes before "a-b" among names.
		sortKey := func(e fs.DirEntry) string {
			if e.IsDir() {
				return e.Name() + "/"
			}
			return e.Name()
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if err := ctx.Err(); err != nil {
				visit(name, nil, err)
				return false
			}
			if e.IsDir() {
				sub := name + "/"
				if (strings.HasPrefix(sub, prefix) || strings.HasPrefix(prefix, sub)) && !descend(name) {
					return false
				}
				continue
			}
			if !strings.HasPrefix(name, prefix) || !e.Type().IsRegular() {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted or renamed since
			}
			if !visit(name, info, err) || err != nil {
				return false
			}
		}
		return true
	}
	descend(start)
}
