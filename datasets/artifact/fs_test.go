package artifact_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func TestFilesIsAFileSystem(t *testing.T) {
	b := artifact.NewMemory()
	for _, key := range []string{"a.txt", "books/one.txt", "books/zh/two.txt", "books.txt", "z/only/deep.md"} {
		if _, err := b.Put(t.Context(), key, strings.NewReader("text of "+key), -1, artifact.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := fstest.TestFS(artifact.Files(t.Context(), b, ""), "a.txt", "books/one.txt", "books/zh/two.txt", "books.txt", "z/only/deep.md"); err != nil {
		t.Error(err)
	}
}

func TestFilesReadRanges(t *testing.T) {
	b := artifact.NewMemory()
	if _, err := b.Put(t.Context(), "f", strings.NewReader("0123456789"), -1, artifact.Condition{}); err != nil {
		t.Fatal(err)
	}
	f, err := artifact.Files(t.Context(), b, "").Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, tt := range map[string]struct {
		off  int64
		n    int
		want string
		err  error
	}{
		"within":            {2, 3, "234", nil},
		"over the end":      {8, 5, "89", io.EOF},
		"behind the end":    {10, 1, "", io.EOF},
		"before the start":  {-1, 1, "", fs.ErrInvalid},
		"all of it exactly": {0, 10, "0123456789", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := make([]byte, tt.n)
			n, err := f.(io.ReaderAt).ReadAt(p, tt.off)
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, string(p[:max(n, 0)])); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilesEndWithTheirContext(t *testing.T) {
	b, err := artifact.NewDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "f", strings.NewReader("text"), -1, artifact.Condition{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	files := artifact.Files(ctx, b, "")
	cancel()
	if data, err := fs.ReadFile(files, "f"); !errors.Is(err, context.Canceled) {
		t.Errorf("read %q, error %v", data, err)
	}
}
