package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func testBlobRace(t *testing.T, s *artifact.Store) {
	for name, size := range map[string]int{"empty": 0, "small": 5000, "in several parts": artifact.PartSize + 12_345} {
		data := random(7, size)
		const writers = 4
		blobs := make([]artifact.Blob, writers)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					blobs[i], err = s.PutBytes(t.Context(), data)
				} else {
					blobs[i], err = s.PutBlob(t.Context(), bytes.NewReader(data))
				}
				if err != nil {
					t.Errorf("%s: writer %d: %v", name, i, err)
				}
			})
		}
		wg.Wait()
		for i := range blobs {
			if blobs[i] != blobs[0] {
				t.Errorf("%s: writer %d has %+v, writer 0 has %+v", name, i, blobs[i], blobs[0])
			}
		}
		if got, err := s.ReadBlob(t.Context(), blobs[0]); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: read back %d bytes, %v", name, len(got), err)
		}
	}
}

func blobKey(t *testing.T, b artifact.Blob) string {
	t.Helper()
	key, err := b.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testCorruptBlob(t *testing.T, s *artifact.Store) {
	ctx := t.Context()
	for name, size := range map[string]int{"small": 5000, "in several parts": artifact.PartSize + 12_345} {
		b, err := s.PutBytes(ctx, random(3, size))
		if err != nil {
			t.Fatal(err)
		}
		key := blobKey(t, b)
		damage(t, s, key, size-100)

		r, err := s.OpenBlob(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		r.Close()
		wantCorrupt(t, name+": read", err, key)
		if n >= b.Size {
			t.Errorf("%s: all %d bytes were handed out before the error", name, n)
		}
		_, err = s.ReadBlob(ctx, b)
		wantCorrupt(t, name+": read at once", err, key)
		wantCorrupt(t, name+": check", s.CheckBlob(ctx, b), key)
		path := filepath.Join(t.TempDir(), "fetched")
		wantCorrupt(t, name+": fetch", s.FetchBlob(ctx, b, path), key)
		if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); names != nil {
			t.Errorf("%s: a failed fetch left %q", name, names)
		}
		_, err = readRange(ctx, s, b, int64(size)-200, 150)
		wantCorrupt(t, name+": range", err, key)
		if b.Parts != "" {
			if _, err := readRange(ctx, s, b, 1000, 5000); err != nil {
				t.Errorf("%s: a range of a part that is sound: %v", name, err)
			}
		}
		if err := s.Backend().Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		_, err = s.ReadBlob(ctx, b)
		wantError(t, name+": missing", err, artifact.ErrNotFound)
		put(t, s, key, string(random(3, size-1)), artifact.Condition{})
		_, err = s.ReadBlob(ctx, b)
		wantCorrupt(t, name+": truncated", err, key)
	}
}

func readRange(ctx context.Context, s *artifact.Store, b artifact.Blob, off, n int64) ([]byte, error) {
	r, err := s.OpenRange(ctx, b, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func testCorruptCopy(t *testing.T, s *artifact.Store) {
	data := random(4, 3000)
	first, err := s.PutBytes(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, s, blobKey(t, first), 5)
	damaged := get(t, s, blobKey(t, first))
	second, err := s.PutBytes(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	if second.Digest != first.Digest || second == first {
		t.Errorf("stored again as %+v, beside %+v", second, first)
	}
	if got, err := s.ReadBlob(t.Context(), second); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the copy: %v", err)
	}
	if get(t, s, blobKey(t, first)) != damaged {
		t.Error("the corrupt object was changed in place")
	}
	if third, err := s.PutBytes(t.Context(), data); err != nil || third != second {
		t.Errorf("put once more: %+v, %v; want %+v", third, err, second)
	}
}

// manifest returns a manifest of one output.
func manifest(t *testing.T, s *artifact.Store, output string) *artifact.Manifest {
	t.Helper()
	m, err := artifact.NewManifest(artifact.Action{Stage: "tokens", StageVersion: 2, Params: map[string]any{"max_length": 1024}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.PutBytes(t.Context(), []byte(output))
	if err != nil {
		t.Fatal(err)
	}
	m.Outputs = []artifact.Output{{Name: "tokens", MediaType: "text/plain", Blob: b}}
	m.Counts = map[string]int64{"tokens": 1 << 60}
	m.Started = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return m
}

func testCorruptDocuments(t *testing.T, s *artifact.Store) {
	ctx := t.Context()
	m, err := s.PutManifest(ctx, manifest(t, s, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AcquirePointer(ctx, "checkpoint/x", "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutRun(ctx, &artifact.RunRecord{ID: "demo", Status: artifact.Running, Started: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		prefix string
		read   func() error
	}{
		{"actions/", func() error { _, err := s.Manifest(ctx, m.Ref()); return err }},
		{"actions/", func() error { _, err := s.FindManifest(ctx, m.Stage, m.Key); return err }},
		{"pointers/", func() error { _, err := s.ReadPointer(ctx, "checkpoint/x"); return err }},
		{"runs/", func() error { _, err := s.Run(ctx, "demo"); return err }},
	} {
		key := list(t, s, tt.prefix)[0]
		if err := tt.read(); err != nil {
			t.Fatal(err)
		}
		sound := get(t, s, key)
		var content []int // white space is not content
		for at := range len(sound) {
			if sound[at] != ' ' && sound[at] != '\n' {
				content = append(content, at)
			}
		}
		for i := 0; i < len(content); i += 1 + len(content)/16 {
			at := content[i]
			damaged := []byte(sound)
			damaged[at] ^= 1
			put(t, s, key, string(damaged), artifact.Condition{})
			wantCorrupt(t, fmt.Sprintf("byte %d (%q) of %s", at, sound[at], key), tt.read(), key)
		}
		put(t, s, key, sound, artifact.Condition{})
	}
}

func testManifestRace(t *testing.T, s *artifact.Store) {
	ctx := t.Context()
	const writers = 8
	mine := make([]*artifact.Manifest, writers)
	won := make([]*artifact.Manifest, writers)
	for i := range mine {
		mine[i] = manifest(t, s, fmt.Sprintf("result %d", i))
	}
	var wg sync.WaitGroup
	for i := range mine {
		wg.Go(func() {
			var err error
			if won[i], err = s.PutManifest(ctx, mine[i]); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i := range won {
		if won[i].Digest() != won[0].Digest() {
			t.Errorf("writer %d holds %s, writer 0 holds %s", i, won[i].Digest(), won[0].Digest())
		}
	}
	if !slices.ContainsFunc(mine, func(m *artifact.Manifest) bool { return m.Digest() == won[0].Digest() }) {
		t.Error("what won was written by nobody")
	}
	found, err := s.FindManifest(ctx, won[0].Stage, won[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(won[0], found, cmp.Comparer(sameJSON)); diff != "" {
		t.Errorf("read back (−put +got):\n%s", diff)
	}

	next := found.NextGeneration()
	next.Outputs = mine[0].Outputs
	if _, err := s.PutManifest(ctx, next); err != nil {
		t.Fatal(err)
	}
	if newest, err := s.FindManifest(ctx, found.Stage, found.Key); err != nil || newest.Generation != 2 {
		t.Errorf("after a repair: generation %d, %v", newest.Generation, err)
	}
	if old, err := s.Manifest(ctx, found.Ref()); err != nil || old.Digest() != found.Digest() {
		t.Errorf("the first generation was changed: %v", err)
	}
}

func sameJSON(a, b json.RawMessage) bool { return len(artifact.Diff(a, b)) == 0 }

func testLeaseFences(t *testing.T, s *artifact.Store) {
	ctx := t.Context()
	first, err := s.AcquirePointer(ctx, "checkpoint/a", "run/attempt-1")
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Value()) != "null" {
		t.Errorf("a new pointer has value %s", first.Value())
	}
	for step := range 3 {
		if err := first.Set(ctx, map[string]int{"step": step}); err != nil {
			t.Fatal(err)
		}
	}
	second, err := s.AcquirePointer(ctx, "checkpoint/a", "run/attempt-2")
	if err != nil {
		t.Fatal(err)
	}
	if !sameJSON(second.Value(), json.RawMessage(`{"step":2}`)) || second.Epoch() != first.Epoch()+1 {
		t.Errorf("the second lease has epoch %d, value %s", second.Epoch(), second.Value())
	}
	for range 2 { // it must not help to try again
		err = first.Set(ctx, map[string]int{"step": 99})
		var fenced *artifact.FencedError
		if !errors.As(err, &fenced) || fenced.Holder != "run/attempt-2" || fenced.Newer != second.Epoch() {
			t.Errorf("the first lease may still write: %v", err)
		}
		wantError(t, "the first lease", err, artifact.ErrFenced)
		wantError(t, "the first lease's check", first.Check(ctx), artifact.ErrFenced)
	}
	if err := second.Set(ctx, map[string]int{"step": 3}); err != nil {
		t.Error(err)
	}
	if err := second.Check(ctx); err != nil {
		t.Error(err)
	}
	p, err := s.ReadPointer(ctx, "checkpoint/a")
	if err != nil || !sameJSON(p.Value, json.RawMessage(`{"step":3}`)) || p.Owner != "run/attempt-2" {
		t.Errorf("the pointer is %+v, %v", p, err)
	}
}

func testLeaseRace(t *testing.T, s *artifact.Store) {
	ctx := t.Context()
	const owners = 6
	leases := make([]*artifact.Lease, owners)
	var wg sync.WaitGroup
	for i := range leases {
		wg.Go(func() {
			var err error
			if leases[i], err = s.AcquirePointer(ctx, "checkpoint/race", fmt.Sprint("owner ", i)); err != nil {
				t.Errorf("owner %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	var epochs []int64
	for _, l := range leases {
		epochs = append(epochs, l.Epoch())
	}
	slices.Sort(epochs)
	if diff := cmp.Diff([]int64{1, 2, 3, 4, 5, 6}, epochs); diff != "" {
		t.Errorf("epochs (−want +got):\n%s", diff)
	}
	for i, l := range leases {
		err := l.Set(ctx, i)
		if newest := l.Epoch() == owners; newest != (err == nil) || !newest && !errors.Is(err, artifact.ErrFenced) {
			t.Errorf("epoch %d of %d: set: %v", l.Epoch(), owners, err)
		}
	}
}

func testRunRecords(t *testing.T, s *artifact.Store) {
	ctx := t.Context()
	record := func(run string, seq int64, status artifact.Status) *artifact.RunRecord {
		return &artifact.RunRecord{ID: "demo-1", RunID: run, Name: "demo", Kind: "study", Sequence: seq, Status: status, Started: time.Unix(100, 0).UTC()}
	}
	_, err := s.Run(ctx, "demo-1")
	wantError(t, "no such run", err, artifact.ErrNotFound)
	for _, step := range []struct {
		put  *artifact.RunRecord
		want artifact.Status
		seq  int64
	}{
		{record("r1", 1, artifact.Running), artifact.Running, 1},
		{record("r1", 3, artifact.Running), artifact.Running, 3},
		{record("r1", 2, artifact.Running), artifact.Running, 3}, // a late repetition
		{record("r1", 4, artifact.Failed), artifact.Failed, 4},
		{record("r1", 5, artifact.Running), artifact.Failed, 4}, // finished stays finished
		{record("r1", 4, artifact.Failed), artifact.Failed, 4},
	} {
		if err := s.PutRun(ctx, step.put); err != nil {
			t.Fatal(err)
		}
		got, err := s.Run(ctx, "demo-1")
		if err != nil || got.Status != step.want || got.Sequence != step.seq {
			t.Errorf("after putting %s %d: got %+v, %v", step.put.Status, step.put.Sequence, got, err)
		}
	}
	again := record("r2", 1, artifact.Running)
	again.Started = time.Unix(200, 0).UTC()
	if err := s.PutRun(ctx, again); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Run(ctx, "demo-1"); err != nil || got.RunID != "r2" {
		t.Errorf("the latest execution is %+v, %v; want r2", got, err)
	}
	put(t, s, "runs/demo-1/r3.json", "{}", artifact.Condition{})
	var ids []string
	bad := 0
	for r, err := range s.Runs(ctx) {
		if err != nil {
			bad++
			continue
		}
		ids = append(ids, r.RunID)
	}
	if diff := cmp.Diff([]string{"r1", "r2"}, ids); diff != "" || bad != 1 {
		t.Errorf("runs (−want +got, %d unreadable, want 1):\n%s", bad, diff)
	}
}
