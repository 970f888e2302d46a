package testenv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/longalign/longalign-go/testenv"
)

// asHelper makes the test binary be another process: "owner" owns a devstack on the directory named by its argument,
// "user" uses the shared one. Both print its endpoint and then live until their standard input closes. The other roles
// are children that behave badly.
const asHelper = "TESTENV_TEST_AS"

func TestMain(m *testing.M) {
	role := os.Getenv(asHelper)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := help(role); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func help(role string) error {
	var e testenv.Endpoint
	switch role {
	case "owner":
		s, err := testenv.Start(context.Background(), testenv.Options{
			Bin: os.Getenv(testenv.BinVariable), Dir: os.Args[1], AnyPorts: true, Headless: true,
		})
		if err != nil {
			return err
		}
		e = s.Endpoint()
	case "dying":
		return errors.New("no room for me here")
	case "mute":
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "stubborn":
		fmt.Println("ready")
		select {}
	case "user":
		var t outsideTests
		if e = testenv.Shared(&t); t.fatal != "" {
			return errors.New(t.fatal)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(e); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// outsideTests stands in for a *testing.T in a helper process.
type outsideTests struct {
	testenv.TB
	fatal string
}

func (t *outsideTests) Helper() {}

func (t *outsideTests) Fatalf(format string, args ...any) { t.fatal = fmt.Sprintf(format, args...) }

// helper is another process of a role.
type helper struct {
	testenv.Endpoint
	cmd   *exec.Cmd
	stdin io.Closer
}

func startHelper(t *testing.T, role string, env []string, args ...string) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command(os.Args[0], args...)}
	h.cmd.Env = append(append(os.Environ(), asHelper+"="+role), env...)
	h.cmd.Stderr = os.Stderr
	var err error
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.cmd.Process.Kill() }) // most have ended by now
	if err := json.NewDecoder(stdout).Decode(&h.Endpoint); err != nil {
		t.Fatalf("helper %s: %v", role, err)
	}
	return h
}

func waitUntilGone(t *testing.T, e testenv.Endpoint) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", e.Temporal)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatalf("devstack, process %d, still runs after 30 s", e.PID)
		}
	}
}

func TestAKilledParentTakesItsDevstackAlong(t *testing.T) {
	h := startHelper(t, "owner", []string{testenv.BinVariable + "=" + binary(t)}, t.TempDir())
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait() // it was killed
	waitUntilGone(t, h.Endpoint)
}

func TestProcessesShareOneDevstackThatOutlivesThem(t *testing.T) {
	env := []string{testenv.BinVariable + "=" + binary(t), testenv.EndpointVariable + "=", "XDG_CACHE_HOME=" + t.TempDir()}
	const users = 3
	var helpers [users]*helper
	var all sync.WaitGroup
	for i := range helpers {
		all.Go(func() { helpers[i] = startHelper(t, "user", env) })
	}
	all.Wait()
	if t.Failed() {
		return
	}
	late := startHelper(t, "user", env)
	for _, h := range append(helpers[:], late) {
		if h.PID != late.PID {
			t.Errorf("devstacks %d and %d, want one", h.PID, late.PID)
		}
		h.stdin.Close()
		if err := h.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	c, err := net.Dial("tcp", late.Temporal)
	if err != nil {
		t.Fatalf("it did not outlive its users: %v", err)
	}
	c.Close()
	stack, err := os.FindProcess(late.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := stack.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	waitUntilGone(t, late.Endpoint)
}
