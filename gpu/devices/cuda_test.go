//go:build cuda

package devices

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A driver with a card makes it the device that auto opens; a process loads one driver, so it is another process that does.
func TestAutoTakesTheCardWhereThereIsOne(t *testing.T) {
	if os.Getenv("LONGALIGN_LIBCUDA") != "" {
		d, err := Open(t.Context(), "auto")
		if err != nil {
			t.Skip(err) // no compiler on this machine: what auto said is in the error
		}
		defer d.Close()
		if i := d.Info(); i.Kind != "cuda" || i.Name != "Fake H100" || i.HostMemory <= 0 {
			t.Errorf("auto opens %+v", i)
		}
		return
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the fake driver")
	}
	file := filepath.Join(t.TempDir(), "libfake.so")
	if out, err := exec.Command(compiler, "-shared", "-fPIC", "-I../cuda/driver/include", "-o", file, "../cuda/driver/fake.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAutoTakesTheCardWhereThereIsOne$", "-test.v")
	cmd.Env = append(os.Environ(), "LONGALIGN_LIBCUDA="+file, "XDG_CACHE_HOME="+t.TempDir(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		if !strings.Contains(string(out), "run-time compiler") {
			t.Errorf("auto did not try the card: %s", out)
		}
		t.Skipf("%s", out)
	}
}
