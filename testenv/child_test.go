package testenv_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longalign/longalign-go/testenv"
)

// startRole starts this test binary in a role.
func startRole(t *testing.T, role, log string, patience time.Duration) (*testenv.Child, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asHelper+"="+role)
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("not ready in time"))
	defer cancel()
	if log != "" {
		file, err := os.Create(log)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		cmd.Stderr = file
	}
	return testenv.StartChild(ctx, role, cmd, log)
}

func TestAChildThatEndsBeforeItIsReadyIsAnErrorWithItsLastWords(t *testing.T) {
	for name, log := range map[string]string{"on standard error": "", "in its log": filepath.Join(t.TempDir(), "child.log")} {
		t.Run(name, func(t *testing.T) {
			_, err := startRole(t, "dying", log, time.Minute)
			if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "no room for me here") {
				t.Errorf("start: %v; want how it ended and what it said", err)
			}
		})
	}
}

func TestAChildThatIsNotReadyInTimeIsAnError(t *testing.T) {
	_, err := startRole(t, "mute", "", 100*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "not ready in time") {
		t.Errorf("start: %v; want that it was not ready in time", err)
	}
}

func TestAChildThatDoesNotStopIsKilled(t *testing.T) {
	child, err := startRole(t, "stubborn", "", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if child.Ready() != "ready" {
		t.Errorf("ready line %q, want %q", child.Ready(), "ready")
	}
	if err := child.Stop(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("stop: %v; want that it was killed", err)
	}
	select {
	case <-child.Exited():
	default:
		t.Error("it still runs after Stop")
	}
}
