// Package refdata finds reference data that may lie beside the repository, in ../shared. The project does not need
// it: tests that use it skip without.
package refdata

import (
	"os"
	"path/filepath"
	"testing"
)

// Path returns the path of a file or folder of reference data, or skips the test.
func Path(tb testing.TB, parts ...string) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "..", "shared", filepath.Join(parts...))
	if _, err := os.Stat(path); err != nil {
		tb.Skipf("reference data is not here: %v", err)
	}
	return path
}
