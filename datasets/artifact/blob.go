package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
