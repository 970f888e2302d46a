package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Files shows a backend's objects as a read-only file system: keys are paths, what precedes a slash is a directory. Only keys that begin
// with prefix are there; "" takes all. The objects are listed once, at the first need; what is put later is not seen. A file reads its object as it goes, and any range of it (io.ReaderAt).
//
// It is how documents are read from s3:// sources. ctx ends all reading.
func Files(ctx context.Context, b Backend, prefix string) fs.FS {
	return &files{ctx: ctx, b: b, prefix: prefix}
}

type files struct {
	ctx    context.Context
	b      Backend
	prefix string

	once sync.Once
	err  error
	dirs map[string][]fs.DirEntry // by path, "." the root; sorted
	byID map[string]Info
}

// list reads all keys once.
func (f *files) list() error {
	f.once.Do(func() {
		f.dirs, f.byID = map[string][]fs.DirEntry{".": nil}, map[string]Info{}
		var add func(dir string, e fs.DirEntry)
		add = func(dir string, e fs.DirEntry) {
			if _, known := f.dirs[dir]; !known {
				add(path.Dir(dir), fileInfo{name: path.Base(dir), dir: true})
			}
			f.dirs[dir] = append(f.dirs[dir], e)
		}
		for info, err := range f.b.List(f.ctx, f.prefix) {
			if err != nil {
				f.err = err
				return
			}
			f.byID[info.Key] = info
			add(path.Dir(info.Key), fileInfo{name: path.Base(info.Key), size: info.Size, modified: info.Modified})
		}
		for dir, entries := range f.dirs {
			slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
			f.dirs[dir] = entries
		}
	})
	return f.err
}

// Open opens an object, or a directory for listing.
func (f *files) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if err := f.list(); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if info, ok := f.byID[name]; ok {
		return &objectFile{f: f, info: info}, nil
	}
	if entries, ok := f.dirs[name]; ok {
		return &objectDir{name: name, left: entries}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

type fileInfo struct {
	name     string
	size     int64
	modified time.Time
	dir      bool
}

func (i fileInfo) Name() string               { return i.name }
func (i fileInfo) Size() int64                { return i.size }
func (i fileInfo) ModTime() time.Time         { return i.modified }
func (i fileInfo) IsDir() bool                { return i.dir }
func (i fileInfo) Sys() any                   { return nil }
func (i fileInfo) Info() (fs.FileInfo, error) { return i, nil }
func (i fileInfo) Type() fs.FileMode          { return i.Mode().Type() }
func (i fileInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// objectFile is an open object. The stream is opened by the first Read.
type objectFile struct {
	f      *files
	info   Info
	stream io.ReadCloser
}

func (o *objectFile) Stat() (fs.FileInfo, error) {
	return fileInfo{name: path.Base(o.info.Key), size: o.info.Size, modified: o.info.Modified}, nil
}

func (o *objectFile) Read(p []byte) (int, error) {
	if o.stream == nil {
		r, info, err := o.f.b.Get(o.f.ctx, o.info.Key)
		if err != nil {
			return 0, o.wrap(err)
		}
		o.stream = r
		if info.Size != o.info.Size {
			return 0, o.wrap(fmt.Errorf("%w: it had %d bytes, now %d", ErrChanged, o.info.Size, info.Size))
		}
	}
	n, err := o.stream.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = o.wrap(err)
	}
	return n, err
}

// ReadAt reads a range with a request of its own.
func (o *objectFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, o.wrap(fs.ErrInvalid)
	}
	n := min(int64(len(p)), o.info.Size-off)
	if n <= 0 {
		return 0, io.EOF
	}
	r, err := o.f.b.GetRange(o.f.ctx, o.info.Key, off, n)
	if err != nil {
		return 0, o.wrap(err)
	}
	defer r.Close()
	read, err := io.ReadFull(r, p[:n])
	switch {
	case err != nil:
		return read, o.wrap(err)
	case n < int64(len(p)):
		return read, io.EOF
	}
	return read, nil
}

func (o *objectFile) Close() error {
	if o.stream == nil {
		return nil
	}
	return o.stream.Close()
}

func (o *objectFile) wrap(err error) error {
	return &fs.PathError{Op: "read", Path: o.info.Key, Err: err}
}

type objectDir struct {
	name string
	left []fs.DirEntry
}

func (d *objectDir) Stat() (fs.FileInfo, error) {
	return fileInfo{name: path.Base(d.name), dir: true}, nil
}
func (d *objectDir) Close() error { return nil }
func (d *objectDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

// ReadDir is that of fs.ReadDirFile.
func (d *objectDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		all := d.left
		d.left = nil
		return all, nil
	}
	if len(d.left) == 0 {
		return nil, io.EOF
	}
	some := d.left[:min(n, len(d.left))]
	d.left = d.left[len(some):]
	return some, nil
}
