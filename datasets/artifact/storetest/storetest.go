// Package storetest is the conformance suite that every artifact store passes. Run it from a test of the backend:
//
//	func TestDirectory(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) *artifact.Store { … an empty store … })
//	}
//
// Order: keys and objects, conditions and races, corruption, pointers and records, then what needs a second process or
// a large object. Objects are damaged through the backend's own Put, behind the store's back.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// Opener returns a new, empty store. Unless its URI begins with mem:, artifact.Open in another process that has this
// process's environment must open the same store by its URI.
type Opener func(t *testing.T) *artifact.Store

// Run runs the suite. With -short the large object is 24 MiB instead of 96.
func Run(t *testing.T, open Opener) {
	if actAsWriter() {
		return // this process is the one that a test below starts in order to kill it
	}
	for _, claim := range []struct {
		name string
		test func(*testing.T, *artifact.Store)
	}{
		{"an object is read back as it was put", testRoundTrip},
		{"keys are confined to the store", testKeys},
		{"what is absent is not found", testAbsent},
		{"a range is part of the object", testRanges},
		{"a listing is in byte order of keys", testListOrder},
		{"a put that must create finds the key taken", testIfNoneMatch},
		{"a put that must replace finds another version", testIfMatch},
		{"many writers race for a key and one wins", testCreateRace},
		{"counting by conditional replacement loses nothing", testReplaceRace},
		{"a body that fails leaves nothing", testBodyFails},
		{"the probe accepts the store", testProbe},
		{"equal bytes are one blob, whoever puts them", testBlobRace},
		{"a corrupt byte is an error that names the object", testCorruptBlob},
		{"a corrupt document is an error that names the object", testCorruptDocuments},
		{"a corrupt blob is stored again beside itself", testCorruptCopy},
		{"many writers race for a manifest and all agree", testManifestRace},
		{"a newer lease fences an older one", testLeaseFences},
		{"leases acquired together have epochs of their own", testLeaseRace},
		{"a finished run record is not replaced by a running one", testRunRecords},
		{"a writer killed at any moment leaves nothing half-written", testKill},
		{"a writer killed half-way through is continued by another", testKillHalfWay},
		{"a large object goes in and out in bounded memory, verified", testLarge},
	} {
		t.Run(claim.name, func(t *testing.T) { claim.test(t, open(t)) })
	}
}

func put(t *testing.T, s *artifact.Store, key, data string, cond artifact.Condition) string {
	t.Helper()
	etag, err := s.Backend().Put(t.Context(), key, strings.NewReader(data), int64(len(data)), cond)
	if err != nil {
		t.Fatal(err)
	}
	return etag
}

func get(t *testing.T, s *artifact.Store, key string) string {
	t.Helper()
	r, info, err := s.Backend().Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if info.Key != key || info.Size != int64(len(data)) || info.ETag == "" || info.Modified.IsZero() {
		t.Errorf("get %s: %d bytes described as %+v", key, len(data), info)
	}
	return string(data)
}

func list(t *testing.T, s *artifact.Store, prefix string) []string {
	t.Helper()
	var keys []string
	for info, err := range s.Backend().List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want one that is %v", what, err, want)
	}
}

// random returns n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	data, err := io.ReadAll(randomReader(seed, int64(n)))
	if err != nil {
		panic(err) // the generator cannot fail
	}
	return data
}

func randomReader(seed uint64, n int64) io.Reader {
	var key [32]byte
	copy(key[:], fmt.Sprintf("storetest %d", seed))
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// damage flips one bit of an object.
func damage(t *testing.T, s *artifact.Store, key string, at int) {
	t.Helper()
	data := []byte(get(t, s, key))
	data[at] ^= 1
	if _, err := s.Backend().Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), artifact.Condition{}); err != nil {
		t.Fatal(err)
	}
}

// wantCorrupt expects an error that names the object.
func wantCorrupt(t *testing.T, what string, err error, key string) {
	t.Helper()
	var corrupt *artifact.CorruptError
	if !errors.As(err, &corrupt) {
		t.Errorf("%s: got error %v, want a *CorruptError", what, err)
	} else if !strings.HasSuffix(corrupt.Object, key) || !strings.Contains(err.Error(), key) {
		t.Errorf("%s: the error names %s, want %s", what, corrupt.Object, key)
	}
}
