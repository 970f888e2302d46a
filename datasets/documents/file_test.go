package documents

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/longalign/longalign-go/datasets"
)

var errOutage = fmt.Errorf("the store went away: %w", io.ErrUnexpectedEOF)

// failingFS gives the first half of each file, then fails.
type failingFS struct {
	fstest.MapFS
	open, list bool // fail there already
}

func (f failingFS) Open(name string) (fs.File, error) {
	file, err := f.MapFS.Open(name)
	if err != nil || name == "." {
		return file, err
	}
	if f.open {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errOutage}
	}
	return &failingFile{File: file, left: len(f.MapFS[name].Data) / 2}, nil
}

func (f failingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if f.list {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errOutage}
	}
	return f.MapFS.ReadDir(name)
}

type failingFile struct {
	fs.File
	left int
}

func (f *failingFile) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errOutage
	}
	n, err := f.File.Read(p[:min(f.left, len(p))])
	f.left -= n
	return n, err
}

func (f *failingFile) ReadAt(p []byte, _ int64) (int, error) { return 0, errOutage }

func TestAnOutageIsNoBadInput(t *testing.T) {
	lines := strings.Repeat(`{"text":"a document of some words"}`+"\n", 2000)
	var zipped, columns bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(z, lines); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ Text string }
	if err := parquet.Write(&columns, []row{{"one"}, {"two"}}); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"a.jsonl": []byte(lines), "a.txt": []byte(lines), "a.md": []byte(lines), "a.html": []byte(lines), "a.go": []byte("// Package a\npackage a\n"),
		"a.jsonl.gz": zipped.Bytes(), "a.jsonl.zst": encoder.EncodeAll([]byte(lines), nil), "a.txt.gz": zipped.Bytes(),
		"a.parquet": columns.Bytes(), "a.parquet.gz": zipped.Bytes(),
	} {
		for _, f := range []failingFS{{}, {open: true}, {list: true}} {
			f.MapFS = fstest.MapFS{name: {Data: data}}
			s := Source{DocumentSource: datasets.DocumentSource{Name: "s", TextField: "text", IDField: "id"}, FS: f}
			bad := 0
			_, err := Read(t.Context(), s, 1<<30, func(datasets.Document) error { return nil }, func(*InputError) error { bad++; return nil })
			if !errors.As(err, new(*ReadError)) || !errors.Is(err, errOutage) || errors.As(err, new(*InputError)) || bad != 0 {
				t.Errorf("%s (open %v, list %v): got %v and %d bad inputs, want a ReadError of the outage", name, f.open, f.list, err, bad)
			}
			entries, err := Entries(t.Context(), s)
			if err == nil {
				err = Hash(t.Context(), s, entries)
			}
			if !errors.As(err, new(*ReadError)) {
				t.Errorf("%s: the digests of what cannot be read now are %+v, %v", name, entries, err)
			}
		}
	}
}
