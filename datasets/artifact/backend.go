package artifact

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// Backend is what a storage service must do. Keys are relative and confined (see CheckKey). Implementations are safe
// for concurrent use, by several processes where the service is shared, and pass storetest.Run.
type Backend interface {
	// Put stores the bytes of r under key and returns the new version's entity tag. The object is complete or absent,
	// never partial, and durable when Put returns; an error from r aborts the put. size is the length of r, −1 when
	// unknown; a different length is an error. A condition that does not hold fails with ErrExists or ErrChanged. After any
	// other error it is not known whether the object was stored.
	Put(ctx context.Context, key string, r io.Reader, size int64, cond Condition) (etag string, err error)
	// Get opens the object; ErrNotFound when there is none.
	Get(ctx context.Context, key string) (io.ReadCloser, Info, error)
	// GetRange opens n bytes from offset off; fewer where the object ends before.
	GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	// Head describes the object; ErrNotFound when there is none.
	Head(ctx context.Context, key string) (Info, error)
	// List yields the objects whose key begins with prefix, in byte order of their keys. ETag may be empty.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes the object; no error when there is none.
	Delete(ctx context.Context, key string) error
}

// Condition makes a put depend on what is there. The zero value puts unconditionally.
type Condition struct {
	IfNoneMatch bool   // only if there is no such object, else ErrExists
	IfMatch     string // only if the object has this entity tag, else ErrChanged
}

// Info describes a stored object.
type Info struct {
	Key      string
	Size     int64
	ETag     string // changes with the content; comparable within one backend only
	Modified time.Time
}

// Janitor is implemented by backends in which an interrupted put leaves something behind that no key names:
// temporary files, unfinished multipart uploads.
type Janitor interface {
	// Leftovers yields what interrupted puts left behind and was last touched before the given time.
	Leftovers(ctx context.Context, before time.Time) iter.Seq2[Leftover, error]
	// Discard removes one of them; no error when it is gone.
	Discard(ctx context.Context, l Leftover) error
}

// Leftover is what an interrupted put left behind.
type Leftover struct {
	Key      string // the key it was meant for, or the name of the temporary file
	ID       string // identifies it to the backend
	Size     int64  // −1 when not known
	Modified time.Time
}

// maxKey leaves room for a prefix below S3's limit of 1,024 bytes.
const maxKey = 900

// CheckKey refuses keys that are empty, absolute, longer than 900 bytes, not UTF-8, hold control characters or
// backslashes, or have a segment that is empty or begins with a dot (so neither "..", nor the backends' own hidden files).
func CheckKey(key string) error {
	bad := func(why string) error { return fmt.Errorf("key %.100q: %w: %s", key, ErrKey, why) }
	switch {
	case key == "":
		return bad("empty")
	case len(key) > maxKey:
		return bad(fmt.Sprintf("%d bytes long, at most %d", len(key), maxKey))
	case !utf8.ValidString(key):
		return bad("not UTF-8")
	case strings.HasPrefix(key, "/"):
		return bad("absolute")
	}
	for _, r := range key {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return bad("control character or backslash")
		}
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return bad("empty segment")
		case segment[0] == '.':
			return bad("segment begins with a dot")
		case len(segment) > 250:
			return bad("segment longer than 250 bytes")
		}
	}
	return nil
}

// checkPrefix refuses list prefixes that no valid key could begin with for reasons of confinement.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return CheckKey(strings.TrimSuffix(prefix, "/"))
}

// Body is what a backend's Put reads instead of r: it fails when r is not size bytes long (unless size is −1), so that
// a short body is never committed, and when ctx ends.
func Body(ctx context.Context, r io.Reader, size int64) io.Reader {
	return &sizedReader{r: ctxReader{ctx, r}, want: size}
}

type sizedReader struct {
	r    io.Reader
	want int64
	n    int64
}

func (s *sizedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if s.want >= 0 && (s.n > s.want || err == io.EOF && s.n != s.want) {
		return n, fmt.Errorf("body of %d bytes announced, read %d", s.want, s.n)
	}
	return n, err
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
