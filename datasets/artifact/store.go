package artifact

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Store keeps artifacts in a Backend. It is safe for concurrent use.
type Store struct {
	backend Backend
	uri     string
}

// New returns a store over a backend; uri names it in messages and records.
func New(b Backend, uri string) *Store { return &Store{backend: b, uri: uri} }

// URI says where the store is.
func (s *Store) URI() string { return s.uri }

// Backend returns what the store is built on.
func (s *Store) Backend() Backend { return s.backend }

// Opener opens a backend for a URI of a registered scheme.
type Opener func(ctx context.Context, uri *url.URL) (Backend, error)

var registry = struct {
	sync.Mutex
	openers  map[string]Opener
	memories map[string]Backend
}{openers: map[string]Opener{}, memories: map[string]Backend{}}

// Register makes Open understand a scheme. A package that provides a backend calls it from init, so that a blank
// import is enough. It panics when the scheme is taken: two packages cannot both mean s3.
func Register(scheme string, open Opener) {
	registry.Lock()
	defer registry.Unlock()
	if _, taken := registry.openers[scheme]; taken || scheme == "file" || scheme == "mem" {
		panic("artifact: scheme " + scheme + " registered twice")
	}
	registry.openers[scheme] = open
}

// Open opens the store at uri: file:///dir or a plain path, mem://name (one store a name and process), or a
// registered scheme such as s3://bucket/prefix. A directory is created by the first put.
func Open(ctx context.Context, uri string) (*Store, error) {
	if uri == "" {
		return nil, errors.New("store: no URI given; use file:///dir or s3://bucket/prefix")
	}
	if !strings.Contains(uri, "://") {
		dir, err := filepath.Abs(uri)
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", uri, err)
		}
		return openDirectory(dir)
	}
	u, err := url.Parse(uri)
	if err != nil {
		// url.Error repeats the whole URI, which may hold a password.
		return nil, fmt.Errorf("store: not a URI: %w; use file:///dir or s3://bucket/prefix", errors.Unwrap(err))
	}
	if u.User != nil {
		return nil, fmt.Errorf("store %s: credentials do not belong into the URI; use the standard AWS environment or profile", u.Redacted())
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("store %s: a directory is written file:///absolute/path", uri)
		}
		return openDirectory(filepath.Clean(u.Path))
	case "mem":
		if u.Host == "" {
			return nil, fmt.Errorf("store %s: an in-memory store needs a name: mem://name", uri)
		}
		registry.Lock()
		defer registry.Unlock()
		name := "mem://" + u.Host + u.Path
		if registry.memories[name] == nil {
			registry.memories[name] = NewMemory()
		}
		return New(registry.memories[name], name), nil
	}
	registry.Lock()
	open := registry.openers[u.Scheme]
	known := []string{"file", "mem"}
	for scheme := range registry.openers {
		known = append(known, scheme)
	}
	registry.Unlock()
	if open == nil {
		slices.Sort(known)
		return nil, fmt.Errorf("store %s: no backend for %s:// in this program (it has %s); a program gains s3 by importing datasets/artifact/s3",
			uri, u.Scheme, strings.Join(known, ", "))
	}
	b, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", uri, err)
	}
	return New(b, strings.TrimSuffix(u.String(), "/")), nil
}

func openDirectory(dir string) (*Store, error) {
	b, err := NewDirectory(dir)
	if err != nil {
		return nil, err
	}
	return New(b, (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()), nil
}

// Probe writes, reads and deletes a small object to learn whether the store works and keeps the promises the rest
// depends on: conditional puts that are refused when they must be. Some S3 services accept the headers and ignore them.
func (s *Store) Probe(ctx context.Context) (err error) {
	key := "probes/" + strings.ToLower(rand.Text())
	put := func(body string, cond Condition) (string, error) {
		return s.backend.Put(ctx, key, strings.NewReader(body), int64(len(body)), cond)
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("store %s: %w", s.uri, fmt.Errorf(format, args...))
	}
	first, err := put("first", Condition{IfNoneMatch: true})
	if err != nil {
		return fail("cannot write: %w", err)
	}
	defer func() {
		if derr := s.backend.Delete(context.WithoutCancel(ctx), key); derr != nil && err == nil {
			err = fail("cannot delete: %w", derr)
		}
	}()
	ignored := func(header string, err error) error {
		if err == nil {
			return fail("it ignores %s on puts, so writers could overwrite each other's results: use a store with conditional writes (AWS S3, MinIO, versitygw, a directory)", header)
		}
		return fail("conditional put: %w", err)
	}
	if _, err := put("second", Condition{IfNoneMatch: true}); !errors.Is(err, ErrExists) {
		return ignored("If-None-Match", err)
	}
	second, err := put("second", Condition{IfMatch: first})
	if err != nil {
		return fail("it refuses If-Match with the current entity tag: %w", err)
	}
	if second != first {
		if _, err := put("third", Condition{IfMatch: first}); !errors.Is(err, ErrChanged) {
			return ignored("If-Match", err)
		}
	}
	data, _, err := s.read(ctx, key, 64)
	if err != nil {
		return fail("cannot read back: %w", err)
	}
	if string(data) != "second" {
		return fail("it returned %q where %q was stored", data, "second")
	}
	r, err := s.backend.GetRange(ctx, key, 2, 3)
	if err != nil {
		return fail("cannot read a range: %w", err)
	}
	defer r.Close()
	if part, err := io.ReadAll(r); err != nil || string(part) != "con" {
		return fail("a range of %q is %q (%v)", "second", part, err)
	}
	return nil
}

// read returns a small object's bytes and description.
func (s *Store) read(ctx context.Context, key string, limit int64) ([]byte, Info, error) {
	r, info, err := s.backend.Get(ctx, key)
	if err != nil {
		return nil, Info{}, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, Info{}, fmt.Errorf("get %s: %w", key, err)
	}
	if int64(len(data)) > limit {
		return nil, Info{}, fmt.Errorf("get %s: longer than %d bytes, which no such object is", key, limit)
	}
	return data, info, nil
}

// maxDocument bounds manifests, pointers and run records in memory.
const maxDocument = 64 << 20

// sumField is the member of a sealed document that holds the hash of all others.
const sumField = "sha256"

// seal encodes v, which must be a JSON object, indented for people, with a hash of its content as last member.
func seal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	raw := bytes.TrimSpace(buf.Bytes())
	canonical, err := canonicalJSON(raw)
	if err != nil {
		return nil, err
	}
	if len(canonical) < 3 || canonical[0] != '{' {
		return nil, errors.New("not a JSON object with members")
	}
	sealed := fmt.Appendf(raw[:len(raw)-1:len(raw)-1], ",%q:%q}", sumField, digestOf(canonical))
	var out bytes.Buffer
	if err := json.Indent(&out, sealed, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// unseal verifies a sealed document and decodes it into v. Members this program does not know are covered by the hash
// and otherwise ignored; the caller checks the document's version.
func (s *Store) unseal(key string, data []byte, v any) error {
	corrupt := func(want, got string) error {
		return &CorruptError{Store: s.uri, Object: key, Want: want, Got: got}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return corrupt("a JSON object", err.Error())
	}
	var want string
	if err := json.Unmarshal(members[sumField], &want); err != nil || want == "" {
		return corrupt("a member "+sumField, "none")
	}
	delete(members, sumField)
	var canonical []byte
	rest, err := json.Marshal(members)
	if err == nil {
		canonical, err = canonicalJSON(rest)
	}
	if err != nil {
		return corrupt(want, err.Error())
	}
	if got := digestOf(canonical); got != want {
		return corrupt(want, got)
	}
	if err := json.Unmarshal(data, v); err != nil {
		// The bytes are what was written, so a newer writer meant something else by a field.
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}
