package testenv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	// BinVariable names a devstack binary to use instead of looking for one or building one.
	BinVariable = "LONGALIGN_DEVSTACK_BIN"

	modulePath = "github.com/longalign/longalign-go"
	program    = "devstack"
	// keepBuilds is how long the build of another version stays in the cache; each is some 150 MB.
	keepBuilds = 7 * 24 * time.Hour
)

// buildFlags drop symbols, a third of the file. There is no -trimpath among them: it would compile every dependency a
// second time, apart from `go test` and `go vet` in the module.
var buildFlags = []string{"-buildvcs=false", "-ldflags=-s -w"}

// Find looks for a devstack binary: the one named by LONGALIGN_DEVSTACK_BIN, else in the directories given, else
// beside the running program.
func Find(dirs ...string) (string, error) {
	if bin := os.Getenv(BinVariable); bin != "" {
		return bin, nil
	}
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	for _, dir := range dirs {
		bin := filepath.Join(dir, executable(program))
		if fi, err := os.Stat(bin); dir != "" && err == nil && fi.Mode().IsRegular() {
			return bin, nil
		}
	}
	return "", fmt.Errorf("no %s in %q: build it with `make build`, or name its directory with --bin-dir", program, dirs)
}

// Build compiles devstack to a file, unless the file is already made of the present sources. The first time takes
// minutes, and progress (may be nil) is told so.
func Build(ctx context.Context, out string, progress io.Writer) error {
	source, err := sourceDir()
	if err != nil {
		return err
	}
	key, err := sourceKey(source)
	if err != nil {
		return err
	}
	stamp := out + ".key"
	if have, err := os.ReadFile(stamp); err == nil && string(have) == key {
		if _, err := os.Stat(out); err == nil {
			return nil
		}
	}
	if progress != nil {
		fmt.Fprintln(progress, "building devstack (Temporal, Web UI, S3): some minutes the first time")
	}
	if out, err = filepath.Abs(out); err != nil {
		return fmt.Errorf("build devstack: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("build devstack: %w", err)
	}
	args := slices.Concat([]string{"build", "-C", source}, buildFlags, []string{"-o", out, "."})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=off") // a workspace would give it other versions than its go.mod
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build devstack: go build -C %s: %w\n%s", source, err, lastLines(string(text)))
	}
	if err := os.WriteFile(stamp, []byte(key), 0o644); err != nil {
		return fmt.Errorf("build devstack: %w", err)
	}
	return nil
}

// Cached returns a devstack binary of the present sources from the user's cache, building it if it is not there; or the
// one named by LONGALIGN_DEVSTACK_BIN.
func Cached(ctx context.Context, progress io.Writer) (string, error) {
	if bin := os.Getenv(BinVariable); bin != "" {
		return bin, nil
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	key, err := sourceKey(source)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, "build", key, executable(program))
	// Packages are tested in parallel processes; one builds and the others wait.
	lock := flock.New(filepath.Join(cache, "build.lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for another build of devstack: %w", err)
	}
	defer lock.Unlock()
	if err := Build(ctx, bin, progress); err != nil {
		return "", err
	}
	now := time.Now()
	return bin, errors.Join(os.Chtimes(bin, now, now), removeOldBuilds(filepath.Join(cache, "build"), now.Add(-keepBuilds)))
}

// removeOldBuilds removes builds not used since a time.
func removeOldBuilds(dir string, before time.Time) error {
	builds, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for old builds: %w", err)
	}
	for _, b := range builds {
		fi, err := os.Stat(filepath.Join(dir, b.Name(), executable(program)))
		if err != nil || fi.ModTime().After(before) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, b.Name())); err != nil {
			return fmt.Errorf("remove an old build: %w", err)
		}
	}
	return nil
}

// cacheDir is where builds and the lingering devstack live, between runs of the tests.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user cache (set HOME or XDG_CACHE_HOME): %w", err)
	}
	dir := filepath.Join(base, "longalign-go", program)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create the user cache: %w", err)
	}
	return dir, nil
}

var moduleLine = regexp.MustCompile(`(?m)^module\s+` + regexp.QuoteMeta(modulePath) + `\s*$`)

// sourceDir finds devstack's sources from the working directory, which for a test is its package's directory.
func sourceDir() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the sources of devstack: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && moduleLine.Match(mod) {
			return filepath.Join(dir, "testenv", program), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the sources of devstack: %s is not inside a checkout of %s; "+
				"name a built binary with %s", wd, modulePath, BinVariable)
		}
	}
}

// sourceKey identifies what a build is made of: sources, dependencies, toolchain and target.
func sourceKey(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH, buildFlags)
	names, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	for _, name := range append(names, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")) {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read the sources of devstack: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(name), len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func executable(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}
