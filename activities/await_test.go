package activities

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhoMakesAResultIsNamedAndHowToTakeOver(t *testing.T) {
	got := map[string]string{}
	for name, m := range map[string]maker{
		"a stage on its own":     {running: true},
		"a run that gets on":     {running: true, run: "study-1"},
		"a run that failed once": {running: true, run: "study-1", attempt: 2, failure: "connection refused"},
		"a run that fails":       {running: true, run: "study-1", attempt: 5, failure: "connection refused"},
	} {
		got[name] = m.note()
	}
	want := map[string]string{
		"a stage on its own":     "made by another run",
		"a run that gets on":     "run study-1 makes it",
		"a run that failed once": "run study-1 makes it and has failed once so far: connection refused; starter cancel study-1 lets this run make it",
		"a run that fails":       "run study-1 makes it and has failed 4 times so far: connection refused; starter cancel study-1 lets this run make it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is said of the maker (-want +got):\n%s", diff)
	}
}
