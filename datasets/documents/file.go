package documents

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// ReadError is a file that could not be read although nothing is wrong with its bytes: the store or the disk failed. No policy
// for bad input applies to it, for another try may read the file whole.
type ReadError struct {
	File string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("%s: cannot be read now: %v", e.File, e.Err) }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// inputFault tells whether err, met where a file was opened or listed, is a fact about the input that trying again cannot mend.
func inputFault(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid)
}

// File is an open file without its compression. Its Read fails with a *ReadError where the file system failed, and with the
// decompressor's error where the bytes are wrong.
type File struct {
	raw  *watched
	in   io.Reader
	done func()
}

// Open opens a file of fsys; what the ending of its name says about compression (.gz, .zst) is undone. Bytes that are not so
// compressed, and files that are missing or not permitted, are an *InputError; other failures a *ReadError.
func Open(fsys fs.FS, name string) (*File, error) {
	f, err := fsys.Open(name)
	switch {
	case err != nil && inputFault(err):
		return nil, &InputError{File: name, Reason: "cannot be opened", Err: err}
	case err != nil:
		return nil, &ReadError{name, err}
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.Join(&InputError{File: name, Reason: "is a directory"}, f.Close())
	}
	file := &File{raw: &watched{File: f, name: name}, done: func() {}}
	file.in = file.raw
	switch {
	case strings.HasSuffix(name, ".gz"):
		z, err := gzip.NewReader(file.raw)
		if err != nil {
			err = file.blame(&InputError{File: name, Reason: "is not gzip", Err: err})
			return nil, errors.Join(err, f.Close())
		}
		file.in = z
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(file.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			err = file.blame(&InputError{File: name, Reason: "is not zstd", Err: err})
			return nil, errors.Join(err, f.Close())
		}
		file.in, file.done = z, z.Close
	}
	return file, nil
}

// Read reads the file's text.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.in.Read(p)
	if err != nil && err != io.EOF {
		if failed := f.raw.failed(); failed != nil {
			err = failed
		}
	}
	return n, err
}

// Close closes the file.
func (f *File) Close() error {
	f.done()
	return f.raw.Close()
}

// blame returns input, unless reading failed below it: what a parser says about bytes it did not get is worth nothing.
func (f *File) blame(input *InputError) error {
	if err := f.raw.failed(); err != nil {
		return err
	}
	return input
}

// watched remembers the first failure of a file to be read.
type watched struct {
	fs.File
	name  string
	moved func(bytes int)
	mu    sync.Mutex
	err   error
}

func (w *watched) note(n int, err error) error {
	if n > 0 && w.moved != nil {
		w.moved(n)
	}
	if err == nil || err == io.EOF {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = &ReadError{w.name, err}
	}
	return w.err
}

func (w *watched) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Read reads the file as it is stored.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.File.Read(p)
	return n, w.note(n, err)
}

// watchedAt is a watched file that can be read in any order.
type watchedAt struct {
	*watched
	at io.ReaderAt
}

// ReadAt reads a range of the file. A parser asks for one before the beginning when the bytes led it there.
func (w watchedAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n, err := w.at.ReadAt(p, off)
	return n, w.note(n, err)
}
