package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTarget(t *testing.T) {
	for name, tt := range map[string]struct {
		card        int
		known       []int
		arch        string
		machineCode bool
	}{
		"a known card gets machine code":                    {90, []int{80, 86, 90}, "sm_90", true},
		"a newer card gets the newest that is older":        {100, []int{80, 90, 120}, "compute_90", false},
		"a card between gets the one below":                 {87, []int{80, 86, 90}, "compute_86", false},
		"a compiler that knows only older cards is refused": {90, []int{35, 70, 75}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			arch, machineCode, err := target(tt.card, tt.known)
			if arch != tt.arch || machineCode != tt.machineCode {
				t.Errorf("target = %q, %v", arch, machineCode)
			}
			var e *Error
			if tt.arch == "" && (!errors.As(err, &e) || e.Kind != Architecture) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestCacheCompilesOnceAndNeverTrustsADamagedFile(t *testing.T) {
	c, compiled := cache{t.TempDir()}, 0
	get := func(parts ...string) string {
		b, err := c.get(func() ([]byte, error) {
			compiled++
			return fmt.Appendf(nil, "code of %v", parts), nil
		}, parts...)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	get("a", "bc")
	if got := get("a", "bc"); got != "code of [a bc]" || compiled != 1 {
		t.Errorf("%q after %d compilations", got, compiled)
	}
	if get("ab", "c"); compiled != 2 {
		t.Error("parts that join to the same text share a file")
	}
	if err := os.WriteFile(c.file([]string{"a", "bc"}), []byte(strings.Repeat("x", 99)), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := get("a", "bc"); got != "code of [a bc]" || compiled != 3 {
		t.Errorf("a damaged file: %q after %d compilations", got, compiled)
	}
	if _, err := c.get(func() ([]byte, error) { return nil, errors.New("no") }, "z"); err == nil {
		t.Error("a failure is kept")
	}
}

// Who names a folder gets what lies there, even where another folder has a newer version.
func TestANamedFolderGoesBeforeNewerVersionsElsewhere(t *testing.T) {
	named, other := t.TempDir(), t.TempDir()
	t.Setenv("LONGALIGN_CUDA_LIBRARIES", named)
	for _, f := range []string{filepath.Join(named, "libnvrtc.so.12"), filepath.Join(other, "libnvrtc.so.13")} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{filepath.Join(named, "libnvrtc.so.12"), filepath.Join(other, "libnvrtc.so.13"), "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"}
	if diff := cmp.Diff(want, candidates("nvrtc", 13, []string{named, other})); diff != "" {
		t.Error(diff)
	}
}

func TestCandidatesComeNewestFirstAndNoNewerThanTheDriver(t *testing.T) {
	t.Setenv("LONGALIGN_CUDA_LIBRARIES", "")
	a, b := t.TempDir(), t.TempDir()
	for _, f := range []string{a + "/libnvrtc.so.12", b + "/libnvrtc.so.13", b + "/libnvrtc.so.12", b + "/libnvrtc.so.11.2"} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for most, want := range map[int][]string{
		13: {b + "/libnvrtc.so.13", "libnvrtc.so.13", a + "/libnvrtc.so.12", b + "/libnvrtc.so.12", "libnvrtc.so.12", b + "/libnvrtc.so.11.2", "libnvrtc.so.11.2"},
		12: {a + "/libnvrtc.so.12", b + "/libnvrtc.so.12", "libnvrtc.so.12", b + "/libnvrtc.so.11.2", "libnvrtc.so.11.2"},
	} {
		if diff := cmp.Diff(want, candidates("nvrtc", most, []string{a, b})); diff != "" {
			t.Errorf("driver %d: %s", most, diff)
		}
	}
}

func TestFoldersNameThoseOfPythonPackages(t *testing.T) {
	venv := t.TempDir()
	lib := filepath.Join(venv, "lib/python3.11/site-packages/nvidia/cu13/lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VIRTUAL_ENV", venv)
	t.Setenv("LONGALIGN_CUDA_LIBRARIES", venv)
	got := folders()
	if len(got) < 2 || got[0] != venv {
		t.Fatalf("the user's folder is not first in %v", got)
	}
	if !strings.Contains(strings.Join(got, "\n"), lib) {
		t.Errorf("%s is not among %v", lib, got)
	}
}

func TestFoldersNameThatOfCondasPackages(t *testing.T) {
	env := t.TempDir()
	if err := os.Mkdir(filepath.Join(env, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONDA_PREFIX", env)
	if got := folders(); !slices.Contains(got, filepath.Join(env, "lib")) {
		t.Errorf("%s/lib is not among %v", env, got)
	}
}

func TestFoldersNameThoseOfThePythonOnThePath(t *testing.T) {
	env := t.TempDir()
	lib := filepath.Join(env, "lib/python3.12/site-packages/nvidia/cu13/lib")
	for _, d := range []string{lib, filepath.Join(env, "bin")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(env, "bin/python3"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(env, "bin"))
	t.Setenv("VIRTUAL_ENV", "")
	if !strings.Contains(strings.Join(folders(), "\n"), lib) {
		t.Errorf("%s is not among %v", lib, folders())
	}
}

// boundCode is like the binding's own type of results.
type boundCode int

func (boundCode) Error() string { return "a code" }

func TestFailuresAreTyped(t *testing.T) {
	for c, want := range map[int]struct {
		kind              Kind
		elsewhere, sticky bool
	}{
		2:   {OutOfMemory, true, false},
		100: {NoDevice, true, false},
		803: {WrongDriver, true, false},
		214: {Hardware, true, true},
		999: {DeviceLost, true, true},
		700: {KernelFailed, false, true},
		1:   {Refused, true, false},
	} {
		var e *Error
		if err := failure("try", fmt.Errorf("wrapped: %w", boundCode(c))); !errors.As(err, &e) || e.Kind != want.kind || e.Code != c || e.Elsewhere() != want.elsewhere || e.Sticky() != want.sticky {
			t.Errorf("code %d: %#v", c, e)
		}
		if err := result("try", c); !errors.As(err, &e) || e.Kind != want.kind {
			t.Errorf("result %d: %v", c, err)
		}
		if advice[want.kind] == "" || !strings.HasSuffix(e.Error(), advice[want.kind]) {
			t.Errorf("%v does not say what to do", e)
		}
	}
	if failure("try", nil) != nil || result("try", 0) != nil {
		t.Error("success fails")
	}
	full := &Error{Kind: OutOfMemory, Op: "allocate", Asked: 3 << 20, Free: 1 << 30, Total: 80 << 30}
	if want := "cuda: allocate: out of memory: 3.0 MiB asked for, 1.0 of 80.0 GiB free; "; !strings.HasPrefix(full.Error(), want) {
		t.Errorf("%q does not begin %q", full, want)
	}
}
