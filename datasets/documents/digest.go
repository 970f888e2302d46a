package documents

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/longalign/longalign-go/datasets"
)

// Digest hashes the names and bytes of the files that Read would read from s: what the source is, wherever it lies. A file
// that is missing or not permitted is a fact about the source too; Read reports it, by the policy for bad input. A file system that fails is
// a *ReadError.
func Digest(ctx context.Context, s Source) (string, error) {
	all := sha256.New()
	unreadable := func(e *InputError) error {
		fmt.Fprintf(all, "%q cannot be read\n", e.File)
		return nil
	}
	err := s.walk(ctx, unreadable, func(name string, _ datasets.DocumentFormat) error {
		f, err := s.FS.Open(name)
		switch {
		case err != nil && inputFault(err):
			return unreadable(&InputError{File: name})
		case err != nil:
			return &ReadError{name, err}
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return &ReadError{name, err}
		}
		fmt.Fprintf(all, "%q %x\n", name, h.Sum(nil))
		return nil
	})
	return "sha256:" + hex.EncodeToString(all.Sum(nil)), err
}
