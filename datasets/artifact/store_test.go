package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ uri, say string }{
		"nothing":                        {"", "no URI"},
		"a scheme that is not linked in": {"gs://bucket/x", "no backend for gs://"},
		"no name":                        {"mem://", "mem://name"},
		"a relative file URI":            {"file://relative/dir", "file:///absolute/path"},
		"a file":                         {"file://" + file, "not a directory"},
		"not a URI":                      {"s3://%zz", "not a URI"},
		"credentials":                    {"s3://id:hunter2@bucket", "credentials do not belong"},
		"credentials in a broken URI":    {"s3://id:hunter2@bu%zzcket", "not a URI"},
	} {
		s, err := Open(t.Context(), tt.uri)
		if err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: got %v, error %v; want an error that says %q", name, s, err, tt.say)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds the secret: %v", name, err)
		}
	}

	dir := filepath.Join(t.TempDir(), "a b", "store")
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("opening created the directory")
	}
	b, err := s.PutBytes(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), s.URI())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.ReadBlob(t.Context(), b); err != nil {
		t.Errorf("opened again by %s: %v", s.URI(), err)
	}
}

// faulty is a backend that misbehaves.
type faulty struct {
	Backend
	put func(b Backend, ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error)
}

func (f faulty) Put(ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
	return f.put(f.Backend, ctx, key, r, size, cond)
}

func TestProbeNoticesAStoreThatIgnoresConditions(t *testing.T) {
	for header, ignore := range map[string]func(*Condition){
		"If-None-Match": func(c *Condition) { c.IfNoneMatch = false },
		"If-Match":      func(c *Condition) { c.IfMatch = "" },
	} {
		s := New(faulty{NewMemory(), func(b Backend, ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
			ignore(&cond)
			return b.Put(ctx, key, r, size, cond)
		}}, "mem://ignores")
		if err := s.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "ignores "+header) {
			t.Errorf("%s: %v", header, err)
		}
	}
}

// repeating stores an object and then answers as a service does to a client that did not hear the first answer and
// asks again.
func repeating() *Store {
	return New(faulty{NewMemory(), func(b Backend, ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
		data, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		etag, err := b.Put(ctx, key, bytes.NewReader(data), size, cond)
		if err != nil || cond == (Condition{}) {
			return etag, err
		}
		return b.Put(ctx, key, bytes.NewReader(data), size, cond)
	}}, "mem://repeats")
}

func TestAWriterThatIsRefusedForItsOwnSuccessSucceeds(t *testing.T) {
	ctx, s := t.Context(), repeating()
	if b, err := s.PutBytes(ctx, []byte("x")); err != nil || b.Copy != 0 {
		t.Errorf("blob: %+v, %v", b, err)
	}
	m, err := NewManifest(sample())
	if err != nil {
		t.Fatal(err)
	}
	if won, err := s.PutManifest(ctx, m); err != nil || won.Key != m.Key {
		t.Errorf("manifest: %v", err)
	}
	for epoch := int64(1); epoch < 3; epoch++ {
		lease, err := s.AcquirePointer(ctx, "p", "me")
		if err != nil || lease.Epoch() != epoch {
			t.Fatalf("acquire: epoch %d, %v; want %d", lease.Epoch(), err, epoch)
		}
		for i := range 3 {
			if err := lease.Set(ctx, i); err != nil {
				t.Errorf("set: %v", err)
			}
		}
	}
	if err := s.PutRun(ctx, &RunRecord{ID: "r", Status: Running}); err != nil {
		t.Errorf("run record: %v", err)
	}
	if err := s.PutRun(ctx, &RunRecord{ID: "r", Status: Completed, Sequence: 1}); err != nil {
		t.Errorf("run record: %v", err)
	}
}

func TestALeaseOutlivesAPutWhoseAnswerWasLost(t *testing.T) {
	lost := errors.New("connection reset")
	lose := false
	s := New(faulty{NewMemory(), func(b Backend, ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
		etag, err := b.Put(ctx, key, r, size, cond)
		if lose && err == nil {
			return "", lost
		}
		return etag, err
	}}, "mem://loses")
	lease, err := s.AcquirePointer(t.Context(), "p", "me")
	if err != nil {
		t.Fatal(err)
	}
	lose = true
	if err := lease.Set(t.Context(), 1); !errors.Is(err, lost) {
		t.Errorf("got %v", err)
	}
	lose = false
	if err := lease.Set(t.Context(), 2); err != nil {
		t.Errorf("the next value: %v", err)
	}
	if p, err := s.ReadPointer(t.Context(), "p"); err != nil || string(p.Value) != "2" {
		t.Errorf("the pointer is %+v, %v", p, err)
	}
}

func TestPutFileNoticesAFileThatChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := NewMemory()
	s := New(faulty{m, func(b Backend, ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
		if err := os.WriteFile(path, []byte("behind"), 0o600); err != nil { // as long as before
			return "", err
		}
		return b.Put(ctx, key, r, size, cond)
	}}, "mem://test")
	// The file is opened before the put, and both writes go to the same file.
	if b, err := s.PutFile(t.Context(), path); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("got %+v, %v", b, err)
	}
	for info := range m.List(t.Context(), "") {
		t.Errorf("left %s", info.Key)
	}
}

func TestBlobNamesFromOutsideAreChecked(t *testing.T) {
	s := New(NewMemory(), "mem://test")
	sound, err := s.PutBytes(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]Blob{
		"empty":          {},
		"not sha256":     {Digest: "md5:" + sound.Digest[7:], Size: 1},
		"short":          {Digest: sound.Digest[:60], Size: 1},
		"upper case":     {Digest: "sha256:" + strings.ToUpper(sound.Digest[7:]), Size: 1},
		"a path":         {Digest: "sha256:../../" + sound.Digest[13:], Size: 1},
		"negative size":  {Digest: sound.Digest, Size: -1},
		"negative copy":  {Digest: sound.Digest, Size: 1, Copy: -2},
		"another length": {Digest: sound.Digest, Size: 2},
		"parts a path":   {Digest: sound.Digest, Size: 1, Parts: "sha256:../.."},
		"parts absent":   {Digest: sound.Digest, Size: 1, Parts: sound.Digest + ".0"},
	} {
		if err := s.CheckBlob(t.Context(), b); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 2}, {2, 0}, {0, -1}, {1 << 62, 1 << 62}} {
		if _, err := s.OpenRange(t.Context(), sound, r[0], r[1]); err == nil {
			t.Errorf("range %v of 1 byte was accepted", r)
		}
	}
}

func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"a/b", "../a", "a/../b", "/a", "a//b", ".x", "a/.", "\x00", "a\\b", "é"} {
		f.Add(seed)
	}
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, key string) {
		if CheckKey(key) != nil {
			return
		}
		if joined := filepath.Join(root, key); !strings.HasPrefix(joined, root+"/") || joined != root+"/"+key {
			t.Errorf("%q leads to %s", key, joined)
		}
	})
}

func FuzzReadDocuments(f *testing.F) {
	s := New(NewMemory(), "mem://fuzz")
	m, err := NewManifest(sample())
	if err != nil {
		f.Fatal(err)
	}
	data, err := seal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"sha256":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}`))
	f.Add([]byte(`{"version":9,"sha256":1}`))
	f.Add([]byte(`[]`))
	key, err := m.Ref().path()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ctx := context.Background()
		if _, err := s.backend.Put(ctx, key, bytes.NewReader(text), -1, Condition{}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Manifest(ctx, m.Ref()); err == nil && got.Digest() != m.Digest() {
			t.Errorf("%q was read as %s", text, fmt.Sprint(got))
		}
	})
}

func BenchmarkPutBlob(b *testing.B) {
	s, err := Open(b.Context(), "file://"+b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for i := 0; b.Loop(); i++ {
		copy(data, fmt.Sprint(i))
		if _, err := s.PutBytes(b.Context(), data); err != nil {
			b.Fatal(err)
		}
	}
}
