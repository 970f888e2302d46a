package testenv

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	// EndpointVariable holds the endpoint that tests share, as JSON or as the path of an endpoint.json.
	EndpointVariable = "LONGALIGN_TEST_DEVSTACK"

	linger = 10 * time.Minute
	// sharedTimeout leaves time for a first build on a slow machine, with other packages' tests running beside it.
	sharedTimeout = 20 * time.Minute
)

// TB is what this package needs of a *testing.T or *testing.B. Naming it here keeps package testing out of programs
// that only want Start.
type TB interface {
	Helper()
	Name() string
	TempDir() string
	Cleanup(func())
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Shared returns the devstack that tests share: the one named by LONGALIGN_TEST_DEVSTACK, as under `make test`, else
// one in the user's cache that is built and started when needed and ends itself ten minutes after its last user.
// Tests keep apart by names from Unique.
func Shared(t TB) Endpoint {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("shared devstack: %v", err)
	}
	return s.Endpoint
}

// Private starts a devstack for one test, which may stop, kill and restart it; what runs at the test's end is stopped.
// The Web UI is left out.
func Private(t TB) *Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), sharedTimeout)
	defer cancel()
	bin, err := Cached(ctx, os.Stderr)
	if err != nil {
		t.Fatalf("private devstack: %v", err)
	}
	s, err := Start(ctx, Options{Bin: bin, Dir: filepath.Join(t.TempDir(), program), AnyPorts: true, Headless: true})
	if err != nil {
		t.Fatalf("private devstack: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Logf("private devstack: %v", err)
		}
	})
	return s
}

// Unique returns a name that no other test, and no other run of this one, has: letters, digits and dashes, at most 48,
// fit for a task queue, a workflow ID and a store prefix.
func Unique(t TB) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, t.Name())
	return strings.Trim(name[:min(len(name), 37)], "-") + "-" + strings.ToLower(rand.Text()[:10])
}

// sharedStack is the devstack of this process's tests.
type sharedStack struct {
	Endpoint
	// inUse keeps a lingering one from ending itself. The lock goes with the process, or when nothing refers to it.
	inUse *flock.Flock
}

var shared = sync.OnceValues(func() (sharedStack, error) {
	if given := os.Getenv(EndpointVariable); given != "" {
		e, err := ReadEndpoint(given)
		if err != nil {
			return sharedStack{}, fmt.Errorf("%s: %w", EndpointVariable, err)
		}
		if err := reach(e); err != nil {
			return sharedStack{}, fmt.Errorf("%s: %w; unset it to have one started", EndpointVariable, err)
		}
		return sharedStack{Endpoint: e}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedTimeout)
	defer cancel()
	return lingering(ctx)
})

// lingering finds the devstack in the user's cache, or starts it. Of several processes one starts it.
func lingering(ctx context.Context) (sharedStack, error) {
	cache, err := cacheDir()
	if err != nil {
		return sharedStack{}, err
	}
	bin, err := Cached(ctx, os.Stderr)
	if err != nil {
		return sharedStack{}, err
	}
	// Another version of the sources gets a devstack of its own.
	version := sha256.Sum256([]byte(bin)) // the cache has one path a version
	data := filepath.Join(cache, "shared", hex.EncodeToString(version[:8]))
	if err := os.MkdirAll(data, 0o700); err != nil {
		return sharedStack{}, fmt.Errorf("create the data directory: %w", err)
	}
	start := flock.New(filepath.Join(cache, "start.lock"))
	if _, err := start.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return sharedStack{}, fmt.Errorf("wait for another process to start devstack: %w", err)
	}
	defer start.Unlock()
	// Refused while a devstack is ending itself, until it is gone.
	users := flock.New(filepath.Join(data, "users.lock"), flock.SetPermissions(0o600))
	if _, err := users.TryRLockContext(ctx, 50*time.Millisecond); err != nil {
		return sharedStack{}, fmt.Errorf("wait for an ending devstack: %w", err)
	}
	now := time.Now()
	if err := os.Chtimes(users.Path(), now, now); err != nil {
		return sharedStack{}, fmt.Errorf("mark devstack as used: %w", err)
	}
	e, err := ReadEndpoint(filepath.Join(data, "endpoint.json"))
	if err != nil || reach(e) != nil {
		e, err = startLingering(ctx, bin, data)
	}
	return sharedStack{Endpoint: e, inUse: users}, err
}

// startLingering starts a devstack that outlives this process, on an emptied directory.
func startLingering(ctx context.Context, bin, data string) (Endpoint, error) {
	if err := empty(data); err != nil {
		return Endpoint{}, err
	}
	out, err := os.OpenFile(filepath.Join(data, "start.log"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return Endpoint{}, err
	}
	defer out.Close()
	cmd := exec.Command(bin, "--dir", data, "--detached", "--linger", linger.String(),
		"--port", "0", "--ui-port", "0", "--s3-port", "0")
	// Files, not pipes: `go test` waits until nobody holds its output any more, and this process will be gone.
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = outliveParent()
	if err := cmd.Start(); err != nil {
		return Endpoint{}, fmt.Errorf("start devstack: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("its servers did not answer within %v", startTimeout))
	defer cancel()
	for {
		if e, err := ReadEndpoint(filepath.Join(data, "endpoint.json")); err == nil {
			return e, nil
		}
		select {
		case <-exited:
			err = errors.New("it ended")
		case <-ctx.Done():
			err = errors.Join(context.Cause(ctx), cmd.Process.Kill())
		case <-time.After(20 * time.Millisecond):
			continue
		}
		said, _ := io.ReadAll(io.NewSectionReader(out, 0, 1<<16)) // best effort: it goes into an error
		return Endpoint{}, fmt.Errorf("start devstack: %w; see %s\n%s", err, filepath.Join(data, "devstack.log"), lastLines(string(said)))
	}
}

// empty removes what an earlier devstack left, so that tests start from nothing, unless one still holds it.
func empty(data string) error {
	lock := flock.New(filepath.Join(data, "lock"), flock.SetPermissions(0o600))
	free, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("look for another devstack: %w", err)
	}
	if !free {
		pid, _ := os.ReadFile(lock.Path()) // best effort: it goes into an error
		return fmt.Errorf("process %s holds %s but does not answer: end it", strings.TrimSpace(string(pid)), data)
	}
	defer lock.Unlock()
	entries, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lock" || e.Name() == "users.lock" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("empty the data directory: %w", err)
		}
	}
	return nil
}

// reach says whether the endpoint's server takes connections.
func reach(e Endpoint) error {
	c, err := net.DialTimeout("tcp", e.Temporal, 5*time.Second)
	if err != nil {
		return fmt.Errorf("no devstack at %s: %w", e.Temporal, err)
	}
	return c.Close()
}
