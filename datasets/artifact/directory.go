package artifact

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// tempPrefix begins the names of files that are being written. No key has a segment that begins with a dot.
const tempPrefix = ".tmp-"

// directory is a Backend in a directory tree, safe for several processes on one machine (and on file systems whose
// flock and link work across machines). An object is one file; it is written beside its place, synced, and then linked
// (to create) or renamed (to replace), and its directory is synced too.
type directory struct {
	dir    string
	synced sync.Map // directories whose entries this process has synced

	replacing sync.Mutex // serialises replacing puts of this process before they queue for the file lock

	mu   sync.Mutex // guards root
	root *os.Root   // confines every access, symbolic links included; nil until the directory exists
}

// NewDirectory returns a backend in dir. The directory is created by the first put.
func NewDirectory(dir string) (Backend, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("store %s: not a directory", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &directory{dir: dir}, nil
}

// open returns the root; ErrNotFound when it does not exist and is not to be created.
func (d *directory) open(create bool) (*os.Root, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root != nil {
		return d.root, nil
	}
	if create {
		if err := os.MkdirAll(d.dir, 0o777); err != nil {
			return nil, fmt.Errorf("store: %w", Full(err, d.dir))
		}
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", absent(err))
	}
	d.root = root
	return root, nil
}

// absent adds ErrNotFound and ErrDenied to file system errors that mean it.
func absent(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}

func (d *directory) Put(ctx context.Context, key string, r io.Reader, size int64, cond Condition) (etag string, err error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	root, err := d.open(true)
	if err != nil {
		return "", err
	}
	if cond.IfNoneMatch {
		if _, err := root.Stat(key); err == nil {
			return "", fmt.Errorf("put %s: %w", key, ErrExists)
		}
	}
	etag, err = d.put(ctx, root, key, Body(ctx, r, size), cond)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = absent(err)
		}
		return "", fmt.Errorf("put %s: %w", key, Full(err, d.dir))
	}
	return etag, nil
}

func (d *directory) put(ctx context.Context, root *os.Root, key string, r io.Reader, cond Condition) (etag string, err error) {
	parent := path.Dir(key)
	if err := d.makeDirectories(root, parent); err != nil {
		return "", err
	}
	temp := path.Join(parent, tempPrefix+strings.ToLower(rand.Text()))
	f, err := root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return "", err
	}
	defer func() {
		f.Close()
		if rerr := root.Remove(temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) && err == nil {
			err = rerr
		}
	}()
	if _, err := io.Copy(f, r); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	if etag, err = fileTag(f); err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	if err := d.place(ctx, root, temp, key, cond); err != nil {
		return "", err
	}
	return etag, syncDirectory(root, parent)
}

// place gives a complete, synced file its key.
func (d *directory) place(ctx context.Context, root *os.Root, temp, key string, cond Condition) error {
	if cond.IfNoneMatch {
		err := root.Link(temp, key)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			return ErrExists
		case !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EPERM):
			return err
		}
		// No hard links on this file system: look and rename under the lock, as all who get here do.
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := d.stat(root, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	found := err == nil
	if cond.IfNoneMatch && found {
		return ErrExists
	}
	if cond.IfMatch != "" && (!found || info.ETag != cond.IfMatch) {
		return ErrChanged
	}
	return root.Rename(temp, key)
}

// lock serialises replacements, within the process and across processes.
func (d *directory) lock(ctx context.Context) (unlock func(), err error) {
	d.replacing.Lock()
	l := flock.New(filepath.Join(d.dir, ".lock"), flock.SetPermissions(0o666))
	if _, err := l.TryLockContext(ctx, 2*time.Millisecond); err != nil {
		d.replacing.Unlock()
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	return func() {
		l.Close()
		d.replacing.Unlock()
	}, nil
}

// makeDirectories creates dir and its parents, durably: a file in a directory whose own name is lost is lost too.
func (d *directory) makeDirectories(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if _, done := d.synced.Load(dir); done {
		return nil
	}
	parent := path.Dir(dir)
	if err := d.makeDirectories(root, parent); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when another process made it: that it has synced it is not known.
	if err := syncDirectory(root, parent); err != nil {
		return err
	}
	d.synced.Store(dir, true)
	return nil
}

func syncDirectory(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// fileTag is an entity tag that changes with each replacement: modification times have the kernel's tick and inode
// numbers are used again, so the first MiB of content is hashed with them. What is replaced under a condition is small.
func fileTag(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, info.Size(), info.ModTime().UnixNano())
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, min(info.Size(), 1<<20))); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// file opens an object.
func (d *directory) file(root *os.Root, key string) (*os.File, Info, error) {
	f, err := root.Open(key)
	if err != nil {
		if err = absent(err); errors.Is(err, ErrNotFound) {
			err = ErrNotFound // the caller names the key; the file's path is the same again
		}
		return nil, Info{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	var tag string
	if err == nil {
		tag, err = fileTag(f)
	}
	if err != nil {
		f.Close()
		return nil, Info{}, err
	}
	return f, Info{Key: key, Size: info.Size(), ETag: tag, Modified: info.ModTime().UTC()}, nil
}

func (d *directory) stat(root *os.Root, key string) (Info, error) {
	f, info, err := d.file(root, key)
	if err != nil {
		return Info{}, err
	}
	return info, f.Close()
}

func (d *directory) access(ctx context.Context, op, key string) (*os.File, Info, error) {
	if err := CheckKey(key); err != nil {
		return nil, Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return nil, Info{}, err
	}
	root, err := d.open(false)
	if err != nil {
		return nil, Info{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	f, info, err := d.file(root, key)
	if err != nil {
		return nil, Info{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	return f, info, nil
}

func (d *directory) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	f, info, err := d.access(ctx, "get", key)
	if err != nil {
		return nil, Info{}, err
	}
	return f, info, nil
}

func (d *directory) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes from %d", key, n, off)
	}
	f, _, err := d.access(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	return readCloser{io.NewSectionReader(f, off, n), f}, nil
}

func (d *directory) Head(ctx context.Context, key string) (Info, error) {
	f, info, err := d.access(ctx, "head", key)
	if err != nil {
		return Info{}, err
	}
	return info, f.Close()
}

func (d *directory) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := d.open(false)
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	unlock, err := d.lock(ctx) // or a conditional put could replace what is no longer there
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := d.stat(root, key); errors.Is(err, ErrNotFound) {
		return nil
	}
	if err := root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", key, absent(err))
	}
	return syncDirectory(root, path.Dir(key))
}
