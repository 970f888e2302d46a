package activities

import "testing"

func TestFailuresAreListedByReason(t *testing.T) {
	if got, want := failedCounts(map[string]int{"refused": 68, "malformed": 2}), "malformed 2, refused 68"; got != want {
		t.Errorf("failedCounts reads %q, want %q", got, want)
	}
}
