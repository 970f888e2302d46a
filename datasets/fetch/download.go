package fetch

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What a download and an unpacked archive may have at most: well above any item, well below what fills a disk by malice.
const (
	maxBytes   = 64 << 30
	maxMembers = 100_000
)

// download brings an item's files into dir.
func download(ctx context.Context, client *http.Client, item Item, dir string, o Options) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range item.Files {
		address, err := at(f.URL, o.Mirror)
		if err != nil {
			return err
		}
		temporary, err := os.CreateTemp("", "longalign-fetch-*")
		if err != nil {
			return err
		}
		err = retrieve(ctx, client, address, temporary, o.Progress)
		if err == nil {
			err = place(root, f, temporary)
		}
		err = errors.Join(err, temporary.Close(), os.Remove(temporary.Name()))
		if err != nil {
			return err
		}
		for name, want := range f.Digests {
			got, err := digest(root, name)
			if err != nil {
				return err
			}
			if got != want {
				return &DigestError{Item: item.Name, File: name, Want: want, Got: got}
			}
		}
	}
	return nil
}

func digest(root *os.Root, name string) (string, error) {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// tries is how often a download is begun or, where the server can, continued.
const tries = 4

// retrieve downloads into f, going on where a connection broke.
func retrieve(ctx context.Context, client *http.Client, address string, f *os.File, progress func(string, int64, int64)) error {
	var have int64
	var err error
	for try := range tries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(try*try) * 300 * time.Millisecond):
			}
		}
		var retry bool
		if have, retry, err = attempt(ctx, client, address, f, have, progress); err == nil || !retry {
			return err
		}
	}
	return err
}

func attempt(ctx context.Context, client *http.Client, address string, f *os.File, have int64, progress func(string, int64, int64)) (now int64, retry bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return have, false, err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := client.Do(req)
	if err != nil {
		return have, ctx.Err() == nil, fmt.Errorf("%w; without access to it, give a mirror with --mirror", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		have = 0 // all of it, whatever was asked for
	case resp.StatusCode != http.StatusPartialContent || have == 0:
		return have, resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("%s answered %s", address, resp.Status)
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return have, false, err
	}
	if err := f.Truncate(have); err != nil {
		return have, false, err
	}
	total := int64(-1)
	if resp.ContentLength >= 0 {
		total = have + resp.ContentLength
	}
	body := io.LimitReader(resp.Body, maxBytes-have+1)
	buffer := make([]byte, 256<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := f.Write(buffer[:n]); err != nil {
				return have, false, err
			}
			have += int64(n)
			if progress != nil {
				progress(address, have, total)
			}
		}
		switch {
		case have > maxBytes:
			return have, false, fmt.Errorf("%s has more than %d bytes", address, int64(maxBytes))
		case errors.Is(err, io.EOF) && (total < 0 || have == total):
			return have, false, nil
		case err != nil:
			return have, ctx.Err() == nil, fmt.Errorf("%s broke off after %d of %d bytes: %w", address, have, total, err)
		}
	}
}

// place puts a download, or what an archive holds, below root.
func place(root *os.Root, f File, downloaded *os.File) error {
	if _, err := downloaded.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch f.Archive {
	case "":
		return write(root, f.As, downloaded)
	case "zip":
		size, err := downloaded.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		z, err := zip.NewReader(downloaded, size)
		if err != nil {
			return fmt.Errorf("%s is no zip archive: %w", f.URL, err)
		}
		u := unpacking{root: root, file: f}
		for _, m := range z.File {
			if m.FileInfo().IsDir() {
				continue
			}
			if !m.Mode().IsRegular() {
				return fmt.Errorf("%s: member %q is no file; links and devices are refused", f.URL, m.Name)
			}
			r, err := m.Open()
			if err != nil {
				return err
			}
			err = errors.Join(u.member(m.Name, r), r.Close())
			if err != nil {
				return err
			}
		}
		return u.end()
	case "tar.gz":
		z, err := gzip.NewReader(downloaded)
		if err != nil {
			return fmt.Errorf("%s is not gzip: %w", f.URL, err)
		}
		u := unpacking{root: root, file: f}
		for t := tar.NewReader(z); ; {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				return u.end()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", f.URL, err)
			}
			switch h.Typeflag {
			case tar.TypeDir, tar.TypeXGlobalHeader, tar.TypeXHeader:
			case tar.TypeReg:
				if err := u.member(h.Name, t); err != nil {
					return err
				}
			default:
				return fmt.Errorf("%s: member %q is no file; links and devices are refused", f.URL, h.Name)
			}
		}
	}
	return fmt.Errorf("%s: archive %q is not known", f.URL, f.Archive)
}

// unpacking writes an archive's members, and bounds how many and how large they are.
type unpacking struct {
	root    *os.Root
	file    File
	members int
	bytes   int64
	kept    []string
}

func (u *unpacking) member(name string, r io.Reader) error {
	if strings.Contains(name, `\`) || !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%s: member %q leaves its directory", u.file.URL, name)
	}
	if u.members++; u.members > maxMembers {
		return fmt.Errorf("%s has more than %d members", u.file.URL, maxMembers)
	}
	name = path.Clean(name)
	if u.file.Below != "" {
		below, ok := strings.CutPrefix(name, u.file.Below+"/")
		if !ok {
			return nil
		}
		name = below
	}
	if len(u.file.Keep) > 0 && !slices.Contains(u.file.Keep, name) {
		return nil
	}
	counted := &counter{r: r, left: maxBytes - u.bytes}
	if err := write(u.root, path.Join(u.file.As, name), counted); err != nil {
		return err
	}
	u.bytes = maxBytes - counted.left
	u.kept = append(u.kept, name)
	return nil
}

func (u *unpacking) end() error {
	for _, name := range u.file.Keep {
		if !slices.Contains(u.kept, name) {
			return fmt.Errorf("%s holds no %s", u.file.URL, path.Join(u.file.Below, name))
		}
	}
	if len(u.kept) == 0 {
		return fmt.Errorf("%s holds nothing below %q", u.file.URL, u.file.Below)
	}
	return nil
}

type counter struct {
	r    io.Reader
	left int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return n, fmt.Errorf("the archive unpacks to more than %d bytes", int64(maxBytes))
	}
	return n, err
}

func write(root *os.Root, name string, r io.Reader) error {
	local := filepath.FromSlash(name)
	if dir := filepath.Dir(local); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// O_EXCL: a name that comes twice in an archive is not what it seems.
	w, err := root.OpenFile(local, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
