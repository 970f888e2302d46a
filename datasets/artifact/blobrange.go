package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

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
