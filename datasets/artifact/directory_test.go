package artifact

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallFiles makes the test binary store a file larger than it may write.
const smallFiles = "LONGALIGN_TEST_SMALL_FILES"

func TestMain(m *testing.M) {
	if uri := os.Getenv(smallFiles); uri != "" {
		os.Exit(storeTooMuch(uri))
	}
	os.Exit(m.Run())
}

func storeTooMuch(uri string) int {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		os.Stdout.WriteString("skip " + err.Error())
		return 0
	}
	s, err := Open(context.Background(), uri)
	if err == nil {
		_, err = s.PutBytes(context.Background(), make([]byte, 3<<20))
	}
	if errors.Is(err, ErrFull) {
		os.Stdout.WriteString("full " + err.Error())
	} else {
		os.Stdout.WriteString("wrong " + err.Error())
	}
	return 0
}

func TestAFullDiskIsSaidAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), smallFiles+"=file://"+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if text, skip := strings.CutPrefix(string(out), "skip "); skip {
		t.Skip(text)
	}
	if !strings.HasPrefix(string(out), "full ") || !strings.Contains(string(out), dir) {
		t.Errorf("the error is %q; want ErrFull, naming %s", out, dir)
	}
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("left %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSymbolicLinksDoNotLeadOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	b, err := NewDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r, _, err := b.Get(t.Context(), "link/secret"); err == nil {
		data, _ := io.ReadAll(r)
		t.Errorf("read %q from outside", data)
	}
	if _, err := b.Put(t.Context(), "link/new", strings.NewReader("x"), 1, Condition{}); err == nil {
		t.Error("wrote outside")
	}
	if err := b.Delete(t.Context(), "link/secret"); err == nil {
		if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
			t.Error("deleted outside")
		}
	}
	for info, err := range b.List(t.Context(), "") {
		t.Errorf("listed %+v, %v", info, err)
	}
}

func TestADirectoryThatMayNotBeWrittenIsDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	b, err := NewDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "a/b", strings.NewReader("x"), 1, Condition{}); !errors.Is(err, ErrDenied) {
		t.Errorf("got %v", err)
	}
}
