package documents

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
)

// Entry is a file of a source, or a place in it that cannot be opened.
type Entry struct {
	Name string `json:"name"`
	// Bad is why it cannot be opened.
	Bad string `json:"bad,omitempty"`
	// Digest is the sha256 of its bytes as they are stored, in hexadecimal; empty of what was not hashed or cannot be read.
	Digest string `json:"digest,omitempty"`
	// Size is that of the file as it is stored.
	Size int64 `json:"size"`
}

// Entries lists the files that Read would read from s, and what it could not open, in its order.
func Entries(ctx context.Context, s Source) ([]Entry, error) {
	var entries []Entry
	err := s.walk(ctx, func(e *InputError) error {
		entries = append(entries, Entry{Name: e.File, Bad: fmt.Sprintf("%s: %v", e.Reason, e.Err)})
		return nil
	}, func(name string, entry fs.DirEntry) error {
		e := Entry{Name: name}
		if info, err := entry.Info(); err == nil { // one that went away is found out about when it is read
			e.Size = info.Size()
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

// Hash fills in the digests of entries of s, several files at once. A file system that fails is a *ReadError.
func Hash(ctx context.Context, s Source, entries []Entry) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i := range entries {
		if entries[i].Bad != "" {
			continue
		}
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			entries[i].Digest, err = s.hash(entries[i].Name)
			return err
		})
	}
	return group.Wait()
}

// hash is the digest of a file, empty if it is missing or not permitted.
func (s Source) hash(name string) (string, error) {
	f, err := s.FS.Open(name)
	switch {
	case err != nil && inputFault(err):
		return "", nil
	case err != nil:
		return "", &ReadError{name, err}
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &watched{File: f, name: name, moved: s.Moved}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Digest is that of the names and bytes of hashed entries: what a source is, wherever it lies. A file that is missing or not permitted is
// a fact about the source too; Read reports it, by the policy for bad input.
func Digest(entries []Entry) string {
	all := sha256.New()
	for _, e := range entries {
		if e.Digest == "" {
			fmt.Fprintf(all, "%q cannot be read\n", e.Name)
			continue
		}
		fmt.Fprintf(all, "%q %s\n", e.Name, e.Digest)
	}
	return "sha256:" + hex.EncodeToString(all.Sum(nil))
}

// ErrChanged is a file that is not what it was when it was hashed.
var ErrChanged = fmt.Errorf("the file changed while the run was under way; start it again")

// readEntries is Read for some files of s only, which must be what they were when they were hashed.
func readEntries(ctx context.Context, s Source, entries []Entry, maxBytes int64, yield func(datasets.Document) error, bad func(*InputError) error) (files int, err error) {
	r := &reader{Source: s, maxBytes: maxBytes, yield: yield, bad: bad}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return r.files, err
		}
		if e.Bad != "" {
			if err := bad(&InputError{File: e.Name, Reason: e.Bad}); err != nil {
				return r.files, err
			}
			continue
		}
		switch digest, err := s.hash(e.Name); {
		case err != nil:
			return r.files, err
		case digest != e.Digest:
			return r.files, fmt.Errorf("%s: %w", e.Name, ErrChanged)
		}
		if err := r.visit(e.Name); err != nil {
			return r.files, err
		}
	}
	return r.files, nil
}
