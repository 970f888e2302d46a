//go:build unix

package cuda

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestOneProcessHoldsACard(t *testing.T) {
	if dir := os.Getenv("LONGALIGN_LOCK_TEST"); dir != "" {
		if _, err := takeLock(dir, "GPU-1"); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	other := func() (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOneProcessHoldsACard$")
		cmd.Env = append(os.Environ(), "LONGALIGN_LOCK_TEST="+dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	first, err := takeLock(dir, "GPU-1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := takeLock(dir, "GPU-1") // the same process may
	if err != nil {
		t.Fatal(err)
	}
	first()
	first()
	if out, err := other(); err == nil || !strings.Contains(out, "busy") || !strings.Contains(out, "process ") {
		t.Errorf("another process holds the card too: %s", out)
	}
	if out, err := other(); err == nil {
		t.Errorf("a second attempt gets it: %s", out)
	}
	second()
	if out, err := other(); err != nil {
		t.Errorf("a card that was given back: %v, %s", err, out)
	}
	var e *Error
	if _, err := takeLock("/dev/null", "GPU-2"); !errors.As(err, &e) || e.Kind != NoLock || !e.Elsewhere() || e.Sticky() {
		t.Errorf("no place for the lock: %v", err)
	}
}

// Another user's lock file is opened without the wish to create it, and locked even where it can only be read.
func TestALockFileOfAnotherUserIsLocked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "longalign-GPU-3.lock")
	if err := os.WriteFile(path, []byte("1\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	release, err := takeLock(dir, "GPU-3")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "longalign-GPU-4.lock")); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := takeLock(dir, "GPU-4"); !errors.As(err, &e) || e.Kind != NoLock {
		t.Errorf("a link in place of the file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a link led to a new file")
	}
}
