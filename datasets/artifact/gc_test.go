package artifact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testbed is a store whose objects' ages can be changed.
type testbed struct {
	*Store
	t *testing.T
	m *memory
}

func newTestbed(t *testing.T) testbed {
	m := NewMemory().(*memory)
	return testbed{New(m, "mem://"+t.Name()), t, m}
}

// age makes everything that is stored now a number of days older.
func (b testbed) age(days int) {
	for key, o := range b.m.objects {
		o.modified = o.modified.Add(-time.Duration(days) * 24 * time.Hour)
		b.m.objects[key] = o
	}
}

func (b testbed) blob(text string) Blob {
	b.t.Helper()
	blob, err := b.PutBytes(b.t.Context(), []byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	return blob
}

// result stores a manifest with one output.
func (b testbed) result(stage, output string, inputs ...*Manifest) *Manifest {
	b.t.Helper()
	action := Action{Stage: stage, StageVersion: 1, Params: map[string]string{"output": output}, Inputs: map[string]string{}}
	refs := map[string]Ref{}
	for i, in := range inputs {
		role := fmt.Sprint("input", i)
		action.Inputs[role] = in.Digest()
		refs[role] = in.Ref()
	}
	m, err := NewManifest(action)
	if err != nil {
		b.t.Fatal(err)
	}
	m.Inputs = refs
	m.Outputs = []Output{{Name: "out", Blob: b.blob(output)}}
	if m, err = b.PutManifest(b.t.Context(), m); err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b testbed) run(id string, status Status, used ...*Manifest) {
	b.t.Helper()
	r := &RunRecord{ID: id, Status: status, Started: time.Unix(1, 0)}
	for _, m := range used {
		r.Stages = append(r.Stages, StageCall{Stage: m.Stage, Ref: m.Ref()})
	}
	if err := b.PutRun(b.t.Context(), r); err != nil {
		b.t.Fatal(err)
	}
}

func (b testbed) has(blob Blob) bool {
	b.t.Helper()
	_, err := b.ReadBlob(b.t.Context(), blob)
	if err != nil && !errors.Is(err, ErrNotFound) {
		b.t.Fatal(err)
	}
	return err == nil
}

func (b testbed) gc(remove bool) *GCReport {
	b.t.Helper()
	r, err := b.GC(b.t.Context(), GCOptions{Delete: remove})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func out(m *Manifest) Blob { return m.Outputs[0].Blob }

func TestGCKeepsWhatRunsNeed(t *testing.T) {
	b := newTestbed(t)
	documents := b.result("documents", "documents")
	tokens := b.result("tokens", "tokens", documents)
	tables := b.result("tables", "tables", tokens)
	unused := b.result("tokens", "unused", documents)
	orphan := b.blob("orphan")
	large, err := b.PutBytes(t.Context(), make([]byte, PartSize+1))
	if err != nil {
		t.Fatal(err)
	}
	withParts := b.result("checkpoint", "x")
	withParts = withParts.NextGeneration()
	withParts.Outputs = []Output{{Name: "model", Blob: large}}
	if _, err := b.PutManifest(t.Context(), withParts); err != nil {
		t.Fatal(err)
	}
	b.run("done", Completed, tables, withParts)
	b.age(30)
	young := b.blob("young")
	youngUnused := b.result("tokens", "young unused")

	dry := b.gc(false)
	if dry.Deleted || !b.has(orphan) {
		t.Error("a dry run removed something")
	}
	report := b.gc(true)
	if diff := cmp.Diff(dry.Garbage, report.Garbage); diff != "" {
		t.Errorf("announced and removed differ (−announced +removed):\n%s", diff)
	}
	for name, tt := range map[string]struct {
		blob Blob
		want bool
	}{
		"what the run lists":           {out(tables), true},
		"what that was made from":      {out(tokens), true},
		"and that":                     {out(documents), true},
		"a large blob":                 {large, true},
		"what no run used":             {out(unused), false},
		"a blob nothing names":         {orphan, false},
		"a young blob":                 {young, true},
		"what a young manifest names":  {out(youngUnused), true},
		"an older generation's output": {out(b.mustFind("checkpoint", withParts.Key, 1)), true},
	} {
		if got := b.has(tt.blob); got != tt.want {
			t.Errorf("%s: kept %v, want %v", name, got, tt.want)
		}
	}
	if err := b.CheckBlob(t.Context(), large); err != nil {
		t.Errorf("the large blob's parts: %v", err)
	}
	if _, err := b.FindManifest(t.Context(), unused.Stage, unused.Key); !errors.Is(err, ErrNotFound) {
		t.Errorf("the unused manifest: %v", err)
	}
	if again := b.gc(true); len(again.Garbage) != 0 || again.Bytes != 0 {
		t.Errorf("a second gc removes %v", again.Garbage)
	}
}

func (b testbed) mustFind(stage, key string, generation int) *Manifest {
	b.t.Helper()
	m, err := b.Manifest(b.t.Context(), Ref{stage, key, generation})
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func TestGCKeepsCheckpointsOfUnfinishedRuns(t *testing.T) {
	for status, want := range map[Status]bool{Running: true, Failed: true, Completed: false, Cancelled: false} {
		t.Run(string(status), func(t *testing.T) {
			b := newTestbed(t)
			key, _, err := sample().Key()
			if err != nil {
				t.Fatal(err)
			}
			saved := b.blob("checkpoint")
			lease, err := b.AcquirePointer(t.Context(), "checkpoint/"+key, "run")
			if err != nil {
				t.Fatal(err)
			}
			if err := lease.Set(t.Context(), map[string]any{"step": 5, "model": saved}); err != nil {
				t.Fatal(err)
			}
			r := &RunRecord{ID: "run", Status: status, Stages: []StageCall{{Stage: "checkpoint", Ref: Ref{Stage: "checkpoint", Key: key}}}}
			if err := b.PutRun(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			b.age(30)
			b.gc(true)
			if got := b.has(saved); got != want {
				t.Errorf("kept %v, want %v", got, want)
			}
			if _, err := b.ReadPointer(t.Context(), "checkpoint/"+key); (err == nil) != want {
				t.Errorf("the pointer: %v", err)
			}
		})
	}
}

func TestGCKeepsAllManifestsWhileARunIsRunning(t *testing.T) {
	b := newTestbed(t)
	old := b.result("tokens", "perhaps reused in a moment")
	orphan := b.blob("orphan")
	b.run("busy", Running)
	b.age(30)
	report := b.gc(true)
	if !b.has(out(old)) || b.has(orphan) || !slices.Equal(report.Running, []string{"busy"}) {
		t.Errorf("manifest kept %v, orphan kept %v, running %v", b.has(out(old)), b.has(orphan), report.Running)
	}
}

func TestGCKeepsABlobThatAWriterHasJustFound(t *testing.T) {
	b := newTestbed(t)
	blob := b.blob("old")
	b.age(30)
	if again := b.blob("old"); again != blob {
		t.Fatalf("%+v, %+v", again, blob)
	}
	b.gc(true)
	if !b.has(blob) {
		t.Error("removed between the writer's blob and its manifest")
	}
	b.age(30)
	b.gc(true)
	if b.has(blob) {
		t.Error("the claim keeps it for ever")
	}
	b.age(30)
	b.gc(true)
	if len(b.m.objects) != 0 {
		t.Errorf("left: %v", b.m.objects)
	}
}

func TestGCKeepsWhatDamagedDocumentsSeemToSay(t *testing.T) {
	b := newTestbed(t)
	documents := b.result("documents", "documents")
	tokens := b.result("tokens", "tokens", documents)
	b.run("done", Completed, tokens)
	b.age(30)
	for key, o := range b.m.objects {
		if strings.HasPrefix(key, "runs/") || strings.HasPrefix(key, "actions/tokens/") {
			o.data = append([]byte{'!'}, o.data...)
			b.m.objects[key] = o
		}
	}
	report := b.gc(true)
	if len(report.Garbage) != 0 || len(report.Problems) != 2 {
		t.Errorf("removed %v, problems %v", report.Garbage, report.Problems)
	}
}

// What a truncated document has lost, nobody can read in it any more.
func TestGCRemovesNothingThatADamagedDocumentMayHaveNamed(t *testing.T) {
	for name, cut := range map[string]func([]byte) []byte{
		"emptied":        func([]byte) []byte { return nil },
		"cut in half":    func(b []byte) []byte { return b[:len(b)/2] },
		"one hash lost":  func(b []byte) []byte { return hashPattern.ReplaceAll(b, []byte("?")) },
		"another object": func([]byte) []byte { return []byte("{}") },
	} {
		for _, prefix := range []string{"runs/", "actions/tokens/"} {
			t.Run(name+" "+prefix, func(t *testing.T) {
				b := newTestbed(t)
				tokens := b.result("tokens", "tokens", b.result("documents", "documents"))
				b.run("done", Completed, tokens)
				b.blob("orphan")
				b.age(30)
				for key, o := range b.m.objects {
					if strings.HasPrefix(key, prefix) {
						o.data = cut(o.data)
						b.m.objects[key] = o
					}
				}
				report := b.gc(true)
				if len(report.Garbage) != 0 || len(report.Problems) != 1 || report.Stays[staysUnknown].Objects == 0 {
					t.Errorf("removed %v, problems %v, stays %v", report.Garbage, report.Problems, report.Stays)
				}
			})
		}
	}
}

func TestGCGoesOnOnceADamagedManifestIsRepaired(t *testing.T) {
	b := newTestbed(t)
	tokens := b.result("tokens", "tokens")
	b.run("done", Completed, tokens)
	repaired := tokens.NextGeneration()
	repaired.Outputs = tokens.Outputs
	if _, err := b.PutManifest(t.Context(), repaired); err != nil {
		t.Fatal(err)
	}
	orphan := b.blob("orphan")
	b.age(30)
	key := "actions/tokens/" + tokens.Key + "/1.json"
	o, ok := b.m.objects[key]
	if !ok {
		t.Fatalf("no %s", key)
	}
	o.data = nil
	b.m.objects[key] = o
	if report := b.gc(true); len(report.Problems) != 0 || b.has(orphan) || !b.has(out(tokens)) {
		t.Errorf("problems %v, orphan kept %v, result kept %v", report.Problems, b.has(orphan), b.has(out(tokens)))
	}
}

func TestGCEndsInterruptedWritesThatAreOld(t *testing.T) {
	s, err := Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := s.Backend().(*directory)
	if _, err := s.PutBytes(t.Context(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	root, err := d.open(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := root.WriteFile("blobs/.tmp-killed", []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	now, err := s.GC(t.Context(), GCOptions{Delete: true})
	if err != nil || len(now.Leftovers) != 0 {
		t.Errorf("a write under way was ended: %+v, %v", now, err)
	}
	later, err := s.GC(t.Context(), GCOptions{Delete: true, Now: time.Now().Add(8 * 24 * time.Hour)})
	if err != nil || len(later.Leftovers) != 1 || len(later.Garbage) != 1 || later.Bytes != 5 {
		t.Errorf("a week later: %+v, %v", later, err)
	}
	if want := "1 blobs, 1 interrupted writes removed, 5 bytes; 0 objects stay"; later.Summary() != want {
		t.Errorf("summary %q, want %q", later.Summary(), want)
	}
	if _, err := root.Stat("blobs/.tmp-killed"); err == nil {
		t.Error("the temporary file is still there")
	}
}

func TestAnInterruptedSweepIsFinishedByTheNext(t *testing.T) {
	build := func() (testbed, Blob) {
		b := newTestbed(t)
		documents := b.result("documents", "documents")
		used := b.result("tokens", "tokens", documents)
		b.run("done", Completed, used)
		for _, name := range []string{"one", "two", "three"} {
			b.result("tokens", name, documents)
			b.blob("orphan " + name)
		}
		b.age(30)
		return b, out(used)
	}
	whole, _ := build()
	garbage := len(whole.gc(true).Garbage)
	if garbage < 6 {
		t.Fatalf("only %d objects to remove", garbage)
	}
	for n := range garbage {
		b, kept := build()
		ctx, kill := context.WithCancel(t.Context())
		s := New(&deadly{Backend: b.Backend(), left: n, kill: kill}, b.URI())
		if _, err := s.GC(ctx, GCOptions{Delete: true}); err == nil {
			t.Fatalf("killed after %d deletions, the sweep says it is done", n)
		}
		kill()
		for ref, r := range b.Manifests(t.Context(), "") {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			for _, o := range r.Manifest.Outputs {
				if err := b.CheckBlob(t.Context(), o.Blob); err != nil {
					t.Errorf("after %d deletions %s names a blob that is gone: %v", n, ref, err)
				}
			}
		}
		if report := b.gc(true); len(report.Garbage) != garbage-n || !b.has(kept) || len(b.m.objects) != len(whole.m.objects) {
			t.Errorf("after %d deletions the next sweep removed %d, used result kept: %v, %d objects stay of %d", n, len(report.Garbage), b.has(kept), len(b.m.objects), len(whole.m.objects))
		}
	}
}

// deadly kills its caller when it is about to delete more than left objects.
type deadly struct {
	Backend
	left int
	kill context.CancelFunc
}

func (d *deadly) Delete(ctx context.Context, key string) error {
	if d.left--; d.left < 0 {
		d.kill()
		return context.Canceled
	}
	return d.Backend.Delete(ctx, key)
}
