// Package documents reads, filters and splits the texts that instructions are made from.
//
// Order: files → documents (Read) → bounds and facts of each alone → exact duplicates, decontamination, near duplicates, split, draw,
// up-sampling. Build does all of it; Look and Decide do it for a corpus divided into groups of files. Every document read is
// kept or counted under one reason.
//
// Everything streams: of the input a few documents are in memory at a time, two for each processor, of what was read
// hashes remain. Only a draw of n documents holds n documents.
//
// What cannot be read is an InputError naming file and line; DocumentsParams.BadInput says whether it stops
// the stage or is counted.
package documents

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/longalign/longalign-go/datasets"
)

// InputError is a place in the input that cannot be read as a document.
type InputError struct {
	File   string
	Line   int // from 1; 0 is the whole file
	Reason string
	Err    error // cause, may be nil
}

func (e *InputError) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", at, e.Reason, e.Err)
	}
	return at + ": " + e.Reason
}

func (e *InputError) Unwrap() error { return e.Err }

// Source is a DocumentSource with its files.
type Source struct {
	datasets.DocumentSource
	FS fs.FS
	// Moved, if not nil, is told of bytes read, as they are stored. It may be called from several goroutines.
	Moved func(bytes int)
}

// Local opens a source whose Path is on this machine. $NAME in Path is taken from the environment; $GOROOT
// is the Go distribution's root if the environment has none.
func Local(s datasets.DocumentSource) (Source, error) {
	p := os.Expand(s.Path, func(name string) string {
		if v := os.Getenv(name); v != "" || name != "GOROOT" {
			return v
		}
		return build.Default.GOROOT
	})
	info, err := os.Stat(p)
	if err != nil {
		return Source{}, fmt.Errorf("documents: source %s: %w; check the path", s.Path, err)
	}
	if info.IsDir() {
		return Source{DocumentSource: s, FS: os.DirFS(p)}, nil
	}
	s.Include = []string{strings.NewReplacer("\\", "\\\\", "*", "\\*", "?", "\\?", "[", "\\[").Replace(filepath.Base(p))}
	return Source{DocumentSource: s, FS: os.DirFS(filepath.Dir(p))}, nil
}

// reader reads the files of one source.
type reader struct {
	Source
	maxBytes int64
	yield    func(datasets.Document) error
	bad      func(*InputError) error
	file     string
	files    int
}

// Read gives every document of s, in the order of file names and places in them. It calls bad for what cannot be read; that
// ends the reading if bad returns an error. A file system that fails ends it with a *ReadError, which bad does not see. files counts the files read.
func Read(ctx context.Context, s Source, maxBytes int64, yield func(datasets.Document) error, bad func(*InputError) error) (files int, err error) {
	r := &reader{Source: s, maxBytes: maxBytes, yield: yield, bad: bad}
	err = s.walk(ctx, bad, func(name string, _ fs.DirEntry) error { return r.visit(name) })
	return r.files, err
}

// visit reads one file.
func (r *reader) visit(name string) error {
	r.file = name
	err := r.read(name, r.formatOf(name))
	if errors.Is(err, errNotADocument) {
		return nil
	}
	r.files++
	var input *InputError
	if errors.As(err, &input) {
		return r.bad(input)
	}
	return err
}

// walk visits the files of s that are meant, in the order of their names.
func (s Source) walk(ctx context.Context, bad func(*InputError) error, visit func(name string, entry fs.DirEntry) error) error {
	return fs.WalkDir(s.FS, ".", func(name string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !inputFault(err) {
			return &ReadError{name, err}
		}
		if err != nil {
			if err := bad(&InputError{File: name, Reason: "cannot be opened", Err: err}); err != nil || name == "." {
				return err
			}
			if entry != nil && entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		if s.formatOf(name) != "" && s.selects(name) {
			return visit(name, entry)
		}
		return nil
	})
}

// errNotADocument leaves out a file that is not meant, such as a generated one.
var errNotADocument = errors.New("not a document")

func (s Source) selects(name string) bool {
	included := len(s.Include) == 0
	for _, pattern := range s.Include {
		included = included || matches(pattern, name)
	}
	for _, pattern := range s.Exclude {
		included = included && !matches(pattern, name)
	}
	return included
}

// matches is path.Match where ** stands for any number of path elements.
func matches(pattern, name string) bool {
	return matchElements(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

func matchElements(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for k := 0; k <= len(name); k++ {
				if matchElements(pattern[1:], name[k:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}

// formatOf returns the format a file is read as, empty to leave it out.
func (s Source) formatOf(name string) datasets.DocumentFormat {
	ext := path.Ext(strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst"))
	format := s.Format
	if format == "" || format == datasets.FormatAuto {
		switch ext {
		case ".jsonl", ".ndjson":
			format = datasets.FormatJSONL
		case ".parquet":
			format = datasets.FormatParquet
		case ".md", ".markdown":
			format = datasets.FormatMarkdown
		case ".html", ".htm":
			format = datasets.FormatHTML
		case ".go":
			format = datasets.FormatGo
		case ".txt":
			format = datasets.FormatText
		default:
			return ""
		}
	}
	if format == datasets.FormatGo && (ext != ".go" || strings.Contains(path.Base(name), "_test.go") ||
		strings.Contains("/"+name, "/testdata/") || strings.Contains("/"+name, "/vendor/")) {
		return ""
	}
	return format
}

// open opens a file of the source.
func (r *reader) open(name string) (*File, error) {
	f, err := Open(r.FS, name)
	if err == nil {
		f.raw.moved = r.Moved
	}
	return f, err
}

func (r *reader) read(name string, format datasets.DocumentFormat) error {
	switch format {
	case datasets.FormatJSONL:
		return r.readJSONL(name)
	case datasets.FormatParquet:
		return r.readParquet(name)
	case datasets.FormatMarkdown:
		return r.readMarkdown(name)
	case datasets.FormatHTML:
		return r.readHTML(name)
	case datasets.FormatGo:
		return r.readGo(name)
	}
	return r.readText(name)
}

// emit fills in what d leaves open and passes it on.
func (r *reader) emit(d datasets.Document, kind datasets.DocumentFormat) error {
	if d.ID == "" {
		d.ID = r.file
	}
	if d.Group == "" {
		d.Group = r.file
	}
	if d.Lang == "" {
		d.Lang = r.Lang
	}
	if d.Lang == "" {
		d.Lang = Language(d.Text)
	}
	d.Source, d.Kind = r.Name, string(kind)
	return r.yield(d)
}
