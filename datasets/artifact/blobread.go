package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// verifier passes bytes on and fails, at the last byte at the latest, when they are not the blob's.
type verifier struct {
	r    io.Reader
	blob Blob
	sum  hash.Hash
	n    int64
	err  error // once set, final
	fail func(got string) error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.n == v.blob.Size {
		// The hash is checked before the last byte is handed out; what remains to see is that nothing follows.
		var extra [1]byte
		n, err := io.ReadFull(v.r, extra[:])
		switch {
		case n > 0:
			v.err = v.fail(fmt.Sprintf("more than %d bytes", v.blob.Size))
		case err == io.EOF:
			v.err = io.EOF
			if v.blob.Size == 0 {
				v.check()
			}
		default:
			v.err = err
		}
		return 0, v.err
	}
	p = p[:min(int64(len(p)), v.blob.Size-v.n)]
	n, err := v.r.Read(p)
	v.sum.Write(p[:n])
	v.n += int64(n)
	switch {
	case v.n == v.blob.Size:
		if v.check(); v.err != nil {
			return 0, v.err
		}
		return n, nil
	case err == io.EOF:
		v.err = v.fail(fmt.Sprintf("only %d of %d bytes", v.n, v.blob.Size))
	case err != nil:
		v.err = err
	}
	return n, v.err
}

func (v *verifier) check() {
	if got := "sha256:" + hex.EncodeToString(v.sum.Sum(nil)); got != v.blob.Digest {
		v.err = v.fail(got)
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

// OpenBlob opens a blob. Its last byte is handed out only after all were hashed: wrong bytes are a *CorruptError at
// the end at the latest, so what was read may be used when reading ended with io.EOF (or all Size bytes were read).
func (s *Store) OpenBlob(ctx context.Context, b Blob) (io.ReadCloser, error) {
	key, err := b.Key()
	if err != nil {
		return nil, err
	}
	fail := func(got string) error { return &CorruptError{Store: s.uri, Object: key, Want: b.Digest, Got: got} }
	r, info, err := s.backend.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if info.Size != b.Size {
		r.Close()
		return nil, fail(fmt.Sprintf("%d bytes instead of %d", info.Size, b.Size))
	}
	return readCloser{&verifier{r: ctxReader{ctx, r}, blob: b, sum: sha256.New(), fail: fail}, r}, nil
}

// CheckBlob reads a blob and returns a *CorruptError when its bytes, or its part hashes, are not what its name says.
func (s *Store) CheckBlob(ctx context.Context, b Blob) error {
	sum := newSums()
	if err := s.copyBlob(ctx, b, sum); err != nil {
		return err
	}
	if b.Parts == "" {
		return nil
	}
	want, err := s.PartHashes(ctx, b)
	if err != nil {
		return err
	}
	if !bytes.Equal(want, sum.partHashes()) {
		p, err := b.partsBlob()
		if err != nil {
			return err
		}
		key, err := p.Key()
		if err != nil {
			return err
		}
		return &CorruptError{Store: s.uri, Object: key, Want: "the part hashes of " + b.Digest, Got: "those of other bytes"}
	}
	return nil
}

func (s *Store) copyBlob(ctx context.Context, b Blob, w io.Writer) error {
	r, err := s.OpenBlob(ctx, b)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("read blob %s: %w", b.Digest, err)
	}
	return nil
}

// ReadBlob returns a blob's verified bytes. Use it for small ones.
func (s *Store) ReadBlob(ctx context.Context, b Blob) ([]byte, error) {
	var buf bytes.Buffer
	if b.Size < 1<<30 {
		buf.Grow(int(max(b.Size, 0)) + bytes.MinRead)
	}
	if err := s.copyBlob(ctx, b, &buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// ReadJSON decodes a blob's verified bytes into v.
func (s *Store) ReadJSON(ctx context.Context, b Blob, v any) error {
	data, err := s.ReadBlob(ctx, b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read blob %s: %w", b.Digest, err)
	}
	return nil
}

// FetchBlob copies a blob to a local file, verified, in bounded memory. The file appears complete or not at all; one
// that is there already and has the blob's bytes is left as it is.
func (s *Store) FetchBlob(ctx context.Context, b Blob, path string) (err error) {
	if CheckFile(path, b) == nil {
		return nil
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("fetch blob: %w", Full(err, dir))
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := s.copyBlob(ctx, b, f); err != nil {
		return Full(err, dir)
	}
	for _, step := range []func() error{
		func() error { return f.Chmod(0o644) },
		f.Sync,
		f.Close,
		func() error { return os.Rename(f.Name(), path) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("fetch blob: %w", Full(err, dir))
		}
	}
	return nil
}

// CheckFile tells whether a local file holds the blob's bytes; a *CorruptError when not.
func CheckFile(path string, b Blob) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fail := func(got string) error {
		return &CorruptError{Store: "the file system", Object: path, Want: b.Digest, Got: got}
	}
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() != b.Size {
		return fail(fmt.Sprintf("%d bytes instead of %d", info.Size(), b.Size))
	}
	_, err = io.Copy(io.Discard, &verifier{r: f, blob: b, sum: sha256.New(), fail: fail})
	return err
}
