//go:build unix

package cuda

import (
	"errors"
	"os"
	"os/exec"
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
	if _, err := takeLock("/dev/null", "GPU-2"); err == nil || errors.As(err, &e) {
		t.Errorf("no place for the lock: %v", err)
	}
}
