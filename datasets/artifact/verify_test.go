package artifact

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVerifyListsEachFailureAndGoesOn(t *testing.T) {
	b := newTestbed(t)
	documents := b.result("documents", "documents")
	tokens := b.result("tokens", "tokens", documents)
	batches := b.result("batches", "batches", tokens)
	scores := b.result("scores", "scores", batches)
	gone := b.result("predictions", "gone")
	refs := []Ref{scores.Ref(), gone.Ref()}

	calls := 0
	report, err := b.Verify(t.Context(), refs, func(VerifyReport) { calls++ })
	if err != nil || len(report.Failures) != 0 || report.Manifests != 5 || report.Blobs != 5 || calls == 0 {
		t.Fatalf("sound: %+v, %v, %d calls", report, err, calls)
	}

	damage := func(key string) {
		o := b.m.objects[key]
		data := []byte(strings.Clone(string(o.data)))
		data[len(data)/2] ^= 1
		o.data = data
		b.m.objects[key] = o
	}
	blobKey, err := out(documents).Key()
	if err != nil {
		t.Fatal(err)
	}
	damage(blobKey)
	manifestKey, err := batches.Ref().path()
	if err != nil {
		t.Fatal(err)
	}
	damage(manifestKey)
	goneKey, err := out(gone).Key()
	if err != nil {
		t.Fatal(err)
	}
	delete(b.m.objects, goneKey)

	report, err = b.Verify(t.Context(), append(refs, tokens.Ref()), nil)
	if err != nil {
		t.Fatal(err)
	}
	type failure struct{ Stage, Output, Object string }
	var got []failure
	for _, f := range report.Failures {
		var corrupt *CorruptError
		object := f.Error
		if errors.As(f.Err, &corrupt) {
			object = corrupt.Object
		}
		got = append(got, failure{f.Ref.Stage, f.Output, object})
	}
	want := []failure{
		{"batches", "", manifestKey},
		{"documents", "out", blobKey},
		{"predictions", "out", "get " + goneKey + ": not found in the store"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("failures (−want +got):\n%s", diff)
	}
}

func TestVerifyNoticesAResultMadeFromOtherInputs(t *testing.T) {
	b := newTestbed(t)
	documents, other := b.result("documents", "documents"), b.result("documents", "others")
	tokens := b.result("tokens", "tokens", documents)
	lying := tokens.NextGeneration()
	lying.Outputs = tokens.Outputs
	lying.Inputs = map[string]Ref{"input0": other.Ref()}
	if _, err := b.PutManifest(t.Context(), lying); err != nil {
		t.Fatal(err)
	}
	report, err := b.Verify(t.Context(), []Ref{lying.Ref()}, nil)
	if err != nil || len(report.Failures) != 1 || !strings.Contains(report.Failures[0].Error, "input0") {
		t.Errorf("%+v, %v", report, err)
	}
}
