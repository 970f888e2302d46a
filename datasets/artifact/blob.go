package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// PartSize is the length of a blob's parts: blobs that are longer carry one hash a part, so that a range can be
// verified without reading the rest. The last part is shorter.
const PartSize = 16 << 20

// spoolMemory is how much of a stream is held in memory before it is spooled to a file.
const spoolMemory = 1 << 20

// maxCopies bounds the search for a place beside corrupt objects of the same digest.
const maxCopies = 100

// Blob names immutable bytes. It is small, comparable, and safe in a workflow's history.
type Blob struct {
	// Digest is the sha256 of the bytes.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Parts names the part hashes (32 bytes each, in order) of a blob longer than PartSize: a blob of its own.
	Parts string `json:"parts,omitempty"`
	// Copy is 2 or more when the bytes were stored again beside a corrupt object of the same digest, which is never overwritten.
	Copy int `json:"copy,omitempty"`
}

// Key returns the blob's key, blobs/sha256/ab/<hex>.
func (b Blob) Key() (string, error) {
	h, ok := strings.CutPrefix(b.Digest, "sha256:")
	if raw, err := hex.DecodeString(h); !ok || err != nil || len(raw) != sha256.Size || strings.ToLower(h) != h {
		return "", fmt.Errorf("blob %.100q: %w: want sha256: and 64 hex digits", b.Digest, ErrKey)
	}
	if b.Size < 0 || b.Copy < 0 {
		return "", fmt.Errorf("blob %s: %w: size %d, copy %d", b.Digest, ErrKey, b.Size, b.Copy)
	}
	key := "blobs/sha256/" + h[:2] + "/" + h
	if b.Copy > 1 {
		key += "." + strconv.Itoa(b.Copy)
	}
	return key, nil
}

// partsBlob returns the blob that holds the part hashes.
func (b Blob) partsBlob() (Blob, error) {
	digest, copyOf, found := strings.Cut(b.Parts, ".")
	p := Blob{Digest: digest, Size: (b.Size + PartSize - 1) / PartSize * sha256.Size}
	if found {
		n, err := strconv.Atoi(copyOf)
		if err != nil || n < 2 {
			return Blob{}, fmt.Errorf("blob %s: parts %.100q: %w", b.Digest, b.Parts, ErrKey)
		}
		p.Copy = n
	}
	return p, nil
}

// sums hashes a stream as a whole and by parts.
type sums struct {
	whole, part hash.Hash
	inPart      int64
	size        int64
	parts       []byte
}

func newSums() *sums { return &sums{whole: sha256.New(), part: sha256.New()} }

func (s *sums) Write(p []byte) (int, error) {
	n := len(p)
	s.whole.Write(p)
	s.size += int64(n)
	for len(p) > 0 {
		k := min(int64(len(p)), PartSize-s.inPart)
		s.part.Write(p[:k])
		p = p[k:]
		if s.inPart += k; s.inPart == PartSize {
			s.endPart()
		}
	}
	return n, nil
}

func (s *sums) endPart() {
	s.parts = s.part.Sum(s.parts)
	s.part.Reset()
	s.inPart = 0
}

func (s *sums) digest() string { return "sha256:" + hex.EncodeToString(s.whole.Sum(nil)) }

// partHashes ends the stream and returns the part hashes, nil when there is but one part.
func (s *sums) partHashes() []byte {
	if s.inPart > 0 {
		s.endPart()
	}
	if s.size <= PartSize {
		return nil
	}
	return s.parts
}

// PutBlob stores a stream. It is spooled (in memory up to 1 MiB, else in the temporary directory), hashed, and put
// only if absent; an object that is already there is read back and compared.
func (s *Store) PutBlob(ctx context.Context, r io.Reader) (Blob, error) {
	sum := newSums()
	r = io.TeeReader(ctxReader{ctx, r}, sum)
	var head bytes.Buffer
	if _, err := io.CopyN(&head, r, spoolMemory); err == io.EOF {
		return s.putHashed(ctx, sum, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head.Bytes())), nil })
	} else if err != nil {
		return Blob{}, fmt.Errorf("store a blob: %w", err)
	}
	spool, err := os.CreateTemp("", "longalign-spool-*")
	if err != nil {
		return Blob{}, fmt.Errorf("store a blob: %w", err)
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	if _, err := io.Copy(spool, io.MultiReader(&head, r)); err != nil {
		return Blob{}, fmt.Errorf("store a blob: spool: %w", Full(err, filepath.Dir(spool.Name())))
	}
	return s.putHashed(ctx, sum, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(spool, 0, sum.size)), nil
	})
}

// PutFile stores a file. It is read twice, to hash and to send; a file that changes meanwhile is an error.
func (s *Store) PutFile(ctx context.Context, path string) (Blob, error) {
	open := func() (io.ReadCloser, error) { return os.Open(path) }
	f, err := open()
	if err != nil {
		return Blob{}, fmt.Errorf("store a blob: %w", err)
	}
	sum := newSums()
	_, err = io.Copy(sum, ctxReader{ctx, f})
	f.Close()
	if err != nil {
		return Blob{}, fmt.Errorf("store a blob: read %s: %w", path, err)
	}
	b, err := s.putHashed(ctx, sum, open)
	if err != nil {
		return Blob{}, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// PutBytes stores data.
func (s *Store) PutBytes(ctx context.Context, data []byte) (Blob, error) {
	sum := newSums()
	sum.Write(data)
	return s.putHashed(ctx, sum, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
}

// PutJSON stores v as canonical JSON, so that equal values are one blob.
func (s *Store) PutJSON(ctx context.Context, v any) (Blob, error) {
	data, err := CanonicalJSON(v)
	if err != nil {
		return Blob{}, fmt.Errorf("store a blob: %w", err)
	}
	return s.PutBytes(ctx, data)
}

// putHashed stores bytes whose hash is known; open is called once for each attempt.
func (s *Store) putHashed(ctx context.Context, sum *sums, open func() (io.ReadCloser, error)) (Blob, error) {
	b := Blob{Digest: sum.digest(), Size: sum.size}
	if hashes := sum.partHashes(); hashes != nil {
		p, err := s.PutBytes(ctx, hashes)
		if err != nil {
			return Blob{}, err
		}
		b.Parts = p.Digest
		if p.Copy > 1 {
			b.Parts += "." + strconv.Itoa(p.Copy)
		}
	}
	for range maxCopies {
		key, err := b.Key()
		if err != nil {
			return Blob{}, err
		}
		err = s.putOnce(ctx, key, b, open)
		if errors.Is(err, ErrExists) {
			err = s.adopt(ctx, key, b)
		}
		var corrupt *CorruptError
		switch {
		case err == nil:
			return b, nil
		case errors.As(err, &corrupt):
			b.Copy = max(2, b.Copy+1) // leave it, store the bytes beside it
		case errors.Is(err, ErrNotFound): // garbage collection came between: put it again
		default:
			return Blob{}, err
		}
	}
	return Blob{}, fmt.Errorf("store blob %s: %d attempts in %s ended in corrupt or vanished objects: the storage is failing", b.Digest, maxCopies, s.uri)
}

// claimAge is the age from which a blob that is found stored already is claimed.
const claimAge = time.Hour

// claimKey names the empty object by which a writer keeps an old blob from garbage collection.
func claimKey(hash string) string { return "claims/" + hash }

// adopt makes an object that is there already the caller's: its bytes are compared, and an old one, which garbage
// collection may be about to remove, is claimed until the caller's manifest names it.
func (s *Store) adopt(ctx context.Context, key string, b Blob) error {
	info, err := s.backend.Head(ctx, key)
	if err != nil {
		return err
	}
	if time.Since(info.Modified) > claimAge {
		claim := claimKey(strings.TrimPrefix(b.Digest, "sha256:"))
		if _, err := s.backend.Put(ctx, claim, strings.NewReader(""), 0, Condition{}); err != nil {
			return err
		}
	}
	return s.CheckBlob(ctx, b)
}

func (s *Store) putOnce(ctx context.Context, key string, b Blob, open func() (io.ReadCloser, error)) error {
	if b.Size > PartSize {
		// Sending a large object only to be told that it is there would be a waste.
		if _, err := s.backend.Head(ctx, key); err == nil {
			return ErrExists
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	body, err := open()
	if err != nil {
		return fmt.Errorf("store a blob: %w", err)
	}
	defer body.Close()
	// The source is hashed again on its way: a file that changed after it was hashed must not be stored under the old name.
	r := &verifier{r: body, blob: b, sum: sha256.New(), fail: func(got string) error {
		return fmt.Errorf("the source changed while it was being stored: hashed %s, then read %s", b.Digest, got)
	}}
	_, err = s.backend.Put(ctx, key, r, b.Size, Condition{IfNoneMatch: true})
	return err
}

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

// PartHashes returns the verified hashes of a blob's parts, 32 bytes each, for whoever maps the bytes into memory and
// verifies them when it touches them (part i is the bytes from i·PartSize). Blobs up to PartSize have none: nil.
func (s *Store) PartHashes(ctx context.Context, b Blob) ([]byte, error) {
	if b.Parts == "" {
		if b.Size > PartSize {
			return nil, fmt.Errorf("blob %s: %d bytes without part hashes", b.Digest, b.Size)
		}
		return nil, nil
	}
	p, err := b.partsBlob()
	if err != nil {
		return nil, err
	}
	return s.ReadBlob(ctx, p)
}

// OpenRange opens n bytes of a blob from offset off. Every byte handed out was verified; of a large blob only the parts
// that the range touches are read, one at a time.
func (s *Store) OpenRange(ctx context.Context, b Blob, off, n int64) (io.ReadCloser, error) {
	key, err := b.Key()
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || off > b.Size || n > b.Size-off {
		return nil, fmt.Errorf("blob %s: range of %d bytes from %d of %d", b.Digest, n, off, b.Size)
	}
	hashes, err := s.PartHashes(ctx, b)
	if err != nil {
		return nil, err
	}
	if hashes == nil {
		data, err := s.ReadBlob(ctx, b)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(data[off : off+n])), nil
	}
	return io.NopCloser(&rangeReader{ctx: ctx, s: s, key: key, blob: b, hashes: hashes, off: off, end: off + n}), nil
}

type rangeReader struct {
	ctx      context.Context
	s        *Store
	key      string
	blob     Blob
	hashes   []byte
	off, end int64
	part     []byte // verified bytes from off on
	buf      []byte
}

func (r *rangeReader) Read(p []byte) (int, error) {
	if r.off == r.end {
		return 0, io.EOF
	}
	if len(r.part) == 0 {
		if err := r.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.part[:min(int64(len(r.part)), r.end-r.off)])
	r.part = r.part[n:]
	r.off += int64(n)
	return n, nil
}

// load reads and verifies the part that holds r.off.
func (r *rangeReader) load() error {
	i := r.off / PartSize
	start := i * PartSize
	size := min(PartSize, r.blob.Size-start)
	if int64(cap(r.buf)) < size {
		r.buf = make([]byte, size)
	}
	buf := r.buf[:size]
	want := r.hashes[i*sha256.Size : (i+1)*sha256.Size]
	corrupt := func(got string) error {
		return &CorruptError{Store: r.s.uri, Object: r.key, Want: fmt.Sprintf("sha256:%x in part %d", want, i), Got: got}
	}
	body, err := r.s.backend.GetRange(r.ctx, r.key, start, size)
	if err != nil {
		return err
	}
	defer body.Close()
	if n, err := io.ReadFull(ctxReader{r.ctx, body}, buf); err == io.EOF || err == io.ErrUnexpectedEOF {
		return corrupt(fmt.Sprintf("only %d of %d bytes", n, size))
	} else if err != nil {
		return fmt.Errorf("get %s: %w", r.key, err)
	}
	if got := sha256.Sum256(buf); !bytes.Equal(got[:], want) {
		return corrupt(fmt.Sprintf("sha256:%x", got))
	}
	r.part = buf[r.off-start:]
	return nil
}
