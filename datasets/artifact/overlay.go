package artifact

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
)

// Overlay returns a backend that reads from both and writes to top alone, so that something can be computed from a store
// without changing it. What top has hides what base has. Deleting, too, affects top alone.
func Overlay(base, top Backend) Backend { return &overlay{base: base, top: top} }

type overlay struct{ base, top Backend }

// Put writes to top. Conditions hold for top: an object of base alone can be written anew, which hides it.
func (o *overlay) Put(ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
	return o.top.Put(ctx, key, r, size, cond)
}

func (o *overlay) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	r, info, err := o.top.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return o.base.Get(ctx, key)
	}
	return r, info, err
}

func (o *overlay) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := o.top.GetRange(ctx, key, off, n)
	if errors.Is(err, ErrNotFound) {
		return o.base.GetRange(ctx, key, off, n)
	}
	return r, err
}

func (o *overlay) Head(ctx context.Context, key string) (Info, error) {
	info, err := o.top.Head(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return o.base.Head(ctx, key)
	}
	return info, err
}

// List merges both lists. Top is small: it is read first and kept.
func (o *overlay) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		var mine []Info
		for info, err := range o.top.List(ctx, prefix) {
			if err != nil {
				yield(Info{}, err)
				return
			}
			mine = append(mine, info)
		}
		slices.SortFunc(mine, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
		for info, err := range o.base.List(ctx, prefix) {
			if err != nil {
				yield(Info{}, err)
				return
			}
			for len(mine) > 0 && mine[0].Key < info.Key {
				if !yield(mine[0], nil) {
					return
				}
				mine = mine[1:]
			}
			if len(mine) > 0 && mine[0].Key == info.Key {
				info, mine = mine[0], mine[1:]
			}
			if !yield(info, nil) {
				return
			}
		}
		for _, info := range mine {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (o *overlay) Delete(ctx context.Context, key string) error { return o.top.Delete(ctx, key) }
