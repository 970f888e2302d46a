//go:build cuda

package devices

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A driver that is there and fails must not send a training to the processor, where it would take forever; none does.
func TestAutoDoesNotHideADriverThatFails(t *testing.T) {
	if os.Getenv("LONGALIGN_LIBCUDA") != "" {
		d, err := Open(t.Context(), "auto")
		if err != nil {
			t.Fatal("error: ", err)
		}
		d.Close()
		t.Fatal("opened: ", d.Info().Kind)
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the fake driver")
	}
	file := filepath.Join(t.TempDir(), "libfake.so")
	if out, err := exec.Command(compiler, "-shared", "-fPIC", "-I../cuda/driver/include", "-o", file, "../cuda/driver/fake.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for fail, want := range map[string]string{
		"init=802": "error:  this machine has a driver for cards that fails (device: host does without): cuda: start the driver: not ready",
		"init=46":  "start the driver: busy",
		"init=999": "start the driver: device lost",
		"init=803": "start the driver: wrong driver",
		"init=100": "opened:  host",
		"count=1":  "opened:  host",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAutoDoesNotHideADriverThatFails$")
		cmd.Env = append(os.Environ(), "LONGALIGN_LIBCUDA="+file, "FAKE_FAIL="+fail)
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("%s: got %s, want %q", fail, out, want)
		}
	}
}
