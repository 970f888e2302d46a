package artifact

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"time"
)

func (b testbed) damage(blob Blob) {
	b.t.Helper()
	key, err := blob.Key()
	if err != nil {
		b.t.Fatal(err)
	}
	o := b.m.objects[key]
	o.data = []byte(strings.Repeat("x", len(o.data)))
	b.m.objects[key] = o
}

// again stores the next generation of a result, with the output given.
func (b testbed) again(m *Manifest, output string) *Manifest {
	b.t.Helper()
	next := m.NextGeneration()
	next.Outputs = []Output{{Name: "out", Blob: b.blob(output)}}
	stored, err := b.PutManifest(b.t.Context(), next)
	if err != nil {
		b.t.Fatal(err)
	}
	return stored
}

func TestCurrentIsTheNewestGenerationOfTheSameResult(t *testing.T) {
	b := newTestbed(t)
	first := b.result("scores", "one")
	b.damage(out(first))
	second := b.again(first, "one")
	if got, err := b.Current(t.Context(), first.Ref()); err != nil || got.Generation != 2 || out(got).Copy != 2 {
		t.Errorf("got %+v, %v; want the repaired generation, stored beside the damaged one", got, err)
	}
	b.again(second, "another")
	if got, err := b.Current(t.Context(), second.Ref()); err != nil || got.Generation != 2 {
		t.Errorf("got %v, %v; a generation that holds something else must not stand in", got.Ref(), err)
	}
	path, err := first.Ref().path()
	if err != nil {
		t.Fatal(err)
	}
	delete(b.m.objects, path)
	if got, err := b.Current(t.Context(), first.Ref()); err != nil || got.Generation != 3 {
		t.Errorf("got %v, %v; want the newest where the named one is gone", got, err)
	}
}

func TestCopyCarriesARunAndNothingElse(t *testing.T) {
	from := newTestbed(t)
	documents := from.result("documents", "documents")
	tokens := from.result("tokens", "tokens", documents)
	from.damage(out(documents))
	from.again(documents, "documents")
	from.result("scores", "of nobody")
	from.run("r", Completed, tokens)
	run, err := from.Run(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	to := newTestbed(t)
	report, err := Copy(t.Context(), from.Store, to.Store, run, nil)
	if err != nil || len(report.Problems) > 0 || report.Manifests != 2 || report.Blobs != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	copied, err := to.Run(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, copied); diff != "" {
		t.Errorf("the record is another: %s", diff)
	}
	for _, ref := range copied.Refs() {
		m, err := to.Current(t.Context(), ref)
		if err != nil || !to.has(out(m)) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if m, err := to.Current(t.Context(), documents.Ref()); err != nil || !to.has(out(m)) {
		t.Errorf("what the run's results were made from: %v", err)
	}
	for range to.Manifests(t.Context(), "scores") {
		t.Error("a result of no run was copied")
	}
	report, err = Copy(t.Context(), from.Store, to.Store, run, nil)
	if err != nil || report.Present != 2 || report.Blobs != 0 {
		t.Errorf("again: %+v, %v", report, err)
	}
}

func TestCopyNamesWhatItCannotCarry(t *testing.T) {
	from, to := newTestbed(t), newTestbed(t)
	good, bad := from.result("tokens", "good"), from.result("tokens", "bad")
	from.damage(out(bad))
	from.run("r", Completed, bad, good)
	run, err := from.Run(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	report, err := Copy(t.Context(), from.Store, to.Store, run, nil)
	var corrupt *CorruptError
	if err != nil || report.Manifests != 1 || len(report.Problems) != 1 || !errors.As(report.Problems[0].Err, &corrupt) {
		t.Fatalf("%+v, %v", report, err)
	}
	other := newTestbed(t)
	mine := other.result("tokens", "good")
	delete(other.m.objects, func() string { p, _ := mine.Ref().path(); return p }())
	mine.Outputs = []Output{{Name: "out", Blob: other.blob("something else")}}
	if _, err := other.PutManifest(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	report, err = Copy(t.Context(), from.Store, other.Store, run, nil)
	if err != nil || !slices.ContainsFunc(report.Problems, func(f VerifyFailure) bool { return strings.Contains(f.Error, "holds something else") }) {
		t.Errorf("%+v, %v; two results of one name must be told", report, err)
	}
}

func TestAnOverlayLeavesTheStoreBelowAlone(t *testing.T) {
	b := newTestbed(t)
	below := b.result("tokens", "below")
	before := len(b.m.objects)
	over := New(Overlay(b.m, NewMemory()), "overlay")
	above := testbed{over, t, nil}.result("batches", "above", below)
	var seen []string
	for ref := range over.Manifests(t.Context(), "") {
		seen = append(seen, ref.Stage)
	}
	if !slices.Equal(seen, []string{"batches", "tokens"}) || len(b.m.objects) != before {
		t.Errorf("the overlay lists %v, the store below has %d objects instead of %d", seen, len(b.m.objects), before)
	}
	for _, m := range []*Manifest{below, above} {
		if _, err := over.ReadBlob(t.Context(), out(m)); err != nil {
			t.Errorf("%s: %v", m.Stage, err)
		}
	}
	b.damage(out(below))
	if err := over.CheckBlob(t.Context(), out(below)); err == nil {
		t.Error("damage below is not seen through the overlay")
	}
}

func TestGCSaysWhyWhatStaysStays(t *testing.T) {
	b := newTestbed(t)
	used, state := b.result("tokens", "used"), b.blob("state")
	key := strings.Repeat("7", 64)
	lease, err := b.AcquirePointer(t.Context(), "checkpoint/"+key, "attempt")
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Set(t.Context(), map[string]Blob{"tensors": state}); err != nil {
		t.Fatal(err)
	}
	if err := b.PutRun(t.Context(), &RunRecord{ID: "r", Status: Failed, Started: time.Unix(1, 0), Pointers: []string{"checkpoint/" + key},
		Stages: []StageCall{{Stage: "tokens", Ref: used.Ref()}}}); err != nil {
		t.Fatal(err)
	}
	b.age(8)
	b.result("scores", "young")
	report, err := b.GC(t.Context(), GCOptions{})
	if err != nil || len(report.Garbage) != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	for why, n := range map[string]int{staysRun: 2, staysState: 2, staysYoung: 2} {
		if report.Stays[why].Objects != n {
			t.Errorf("%s: %d objects, want %d (%+v)", why, report.Stays[why].Objects, n, report.Stays)
		}
	}
}

func TestStatesOfFinishedTrainingsGo(t *testing.T) {
	b := newTestbed(t)
	trained, state := b.result("checkpoint", "weights"), b.blob("state")
	lease, err := b.AcquirePointer(t.Context(), "checkpoint/"+trained.Key, "attempt")
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Set(t.Context(), map[string]Blob{"tensors": state}); err != nil {
		t.Fatal(err)
	}
	// The run failed later on: what it takes up again is not this training, which has its result.
	b.run("r", Failed, trained)
	b.age(8)
	report, err := b.GC(t.Context(), GCOptions{Delete: true})
	if err != nil || len(report.Garbage) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	if b.has(state) || !b.has(out(trained)) {
		t.Error("the state must go, the weights must stay")
	}
}
