// Package fetch downloads benchmark and instruction files from their publishers into the user's cache.
//
// Order: look at the lock file → download → digest → unpack → record or compare → put in place.
//
// The first fetch of an item records the digests of its files in the lock file; every later one, on this machine or on another one
// with the same lock file, must give the same. Nothing is put in place before everything was verified. Members of archives are confined
// to the item's directory; links and devices are refused.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Dir is where fetched items are: a directory for each, in the user's cache or where LONGALIGN_FETCHED says.
func Dir() (string, error) {
	if d := os.Getenv("LONGALIGN_FETCHED"); d != "" {
		return filepath.Abs(d)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("fetched files: %w; set LONGALIGN_FETCHED", err)
	}
	return filepath.Join(base, "longalign"), nil
}

// Expand replaces $FETCHED at the start of a path by Dir.
func Expand(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "$FETCHED")
	if !ok || rest != "" && rest[0] != '/' {
		return path, nil
	}
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	full := filepath.Join(dir, filepath.FromSlash(rest))
	if _, err := os.Stat(full); errors.Is(err, fs.ErrNotExist) {
		name, _, _ := strings.Cut(strings.Trim(rest, "/"), "/")
		return "", fmt.Errorf("%s is not there; run starter fetch %s where the worker runs", full, name)
	}
	return full, nil
}

// Options say how to fetch.
type Options struct {
	// Dir holds the items; empty means Dir().
	Dir string
	// Lock is the lock file; empty means fetch.lock.json in Dir.
	Lock string
	// Mirror replaces scheme and host of every address.
	Mirror string
	// Update accepts other files than the lock file has, and records them.
	Update bool
	// Progress is told of each download's bytes; total is -1 when unknown. May be nil.
	Progress func(url string, done, total int64)
}

// Locked is what the lock file says of an item: the sha256 of each of its files by name, and where they came from.
type Locked struct {
	From  []string          `json:"from"`
	Files map[string]string `json:"files"`
	At    time.Time         `json:"at"`
}

// Result is a fetched item.
type Result struct {
	Name    string            `json:"name"`
	Dir     string            `json:"dir"`
	Files   map[string]string `json:"files"`
	Present bool              `json:"present"` // it was there, and is what the lock file says
	Locked  bool              `json:"locked"`  // compared with the lock file, not recorded first
}

// DigestError is a file that is not what was recorded.
type DigestError struct{ Item, File, Want, Got string }

// Error says what to do.
func (e *DigestError) Error() string {
	return fmt.Sprintf("%s: %s has sha256 %s, recorded is %s: its publisher changed it, or it was tampered with; look at it, then accept it with --update", e.Item, e.File, orNone(e.Got), orNone(e.Want))
}

func orNone(s string) string {
	if s == "" {
		return "(no such file)"
	}
	return s
}

// Find returns the item of that name.
func Find(name string) (Item, error) {
	i := slices.IndexFunc(Table, func(i Item) bool { return i.Name == name })
	if i < 0 {
		var known []string
		for _, i := range Table {
			known = append(known, i.Name)
		}
		return Item{}, fmt.Errorf("nothing named %q can be fetched; there is %s", name, strings.Join(known, ", "))
	}
	return Table[i], nil
}

// Get brings an item into its directory, unless it is there as recorded.
func Get(ctx context.Context, client *http.Client, item Item, o Options) (Result, error) {
	r := Result{Name: item.Name}
	if o.Dir == "" {
		var err error
		if o.Dir, err = Dir(); err != nil {
			return r, err
		}
	}
	if o.Lock == "" {
		o.Lock = filepath.Join(o.Dir, "fetch.lock.json")
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return r, fmt.Errorf("fetch: %w", err)
	}
	// Two fetches at once would overwrite each other's files and lock entries.
	guard := flock.New(filepath.Join(o.Dir, ".fetch"))
	if _, err := guard.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return r, fmt.Errorf("fetch: %w", err)
	}
	defer guard.Unlock()
	lock, err := readLock(o.Lock)
	if err != nil {
		return r, err
	}
	r.Dir = filepath.Join(o.Dir, item.Name)
	recorded, known := lock[item.Name]
	if known && !o.Update {
		if have, err := digests(r.Dir); err == nil && maps.Equal(have, recorded.Files) {
			r.Files, r.Present, r.Locked = have, true, true
			return r, nil
		}
	}
	fresh, err := os.MkdirTemp(o.Dir, ".fetch-*")
	if err != nil {
		return r, fmt.Errorf("fetch: %w", err)
	}
	defer os.RemoveAll(fresh)
	if err := download(ctx, client, item, fresh, o); err != nil {
		return r, fmt.Errorf("fetch %s: %w", item.Name, err)
	}
	if r.Files, err = digests(fresh); err != nil {
		return r, fmt.Errorf("fetch %s: %w", item.Name, err)
	}
	if known && !o.Update {
		if err := compare(item.Name, recorded.Files, r.Files); err != nil {
			return r, err
		}
		r.Locked = true
	}
	if err := replace(r.Dir, fresh); err != nil {
		return r, fmt.Errorf("fetch %s: %w", item.Name, err)
	}
	if r.Locked {
		return r, nil
	}
	var from []string
	for _, f := range item.Files {
		from = append(from, f.URL)
	}
	lock[item.Name] = Locked{From: from, Files: r.Files, At: time.Now().UTC().Truncate(time.Second)}
	return r, writeLock(o.Lock, lock)
}

// compare finds the first file that is not as recorded.
func compare(item string, want, got map[string]string) error {
	names := slices.Sorted(maps.Keys(want))
	for _, name := range append(names, slices.Sorted(maps.Keys(got))...) {
		if want[name] != got[name] {
			return &DigestError{Item: item, File: name, Want: want[name], Got: got[name]}
		}
	}
	return nil
}

// digests hashes every file below dir.
func digests(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		sums[filepath.ToSlash(name)] = hex.EncodeToString(h.Sum(nil))
		return err
	})
	return sums, err
}

// replace puts fresh where dir is.
func replace(dir, fresh string) error {
	old := fresh + ".old"
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

func readLock(path string) (map[string]Locked, error) {
	lock := map[string]Locked{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return lock, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &lock)
	}
	if err != nil {
		return nil, fmt.Errorf("lock file %s: %w", path, err)
	}
	return lock, nil
}

func writeLock(path string, lock map[string]Locked) error {
	data, err := json.MarshalIndent(lock, "", "  ")
	if err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("lock file: %w", err)
	}
	return os.Rename(temporary, path)
}

// at is an address, at the mirror if there is one.
func at(address, mirror string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || mirror == "" {
		return address, err
	}
	m, err := url.Parse(mirror)
	if err != nil || m.Host == "" || m.Scheme != "http" && m.Scheme != "https" {
		return "", fmt.Errorf("mirror %q is no http:// or https:// address", mirror)
	}
	u.Scheme, u.Host, u.Path = m.Scheme, m.Host, strings.TrimSuffix(m.Path, "/")+u.Path
	return u.String(), nil
}
