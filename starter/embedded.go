package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/testenv"
)

// embedded says where the embedded stack keeps its data and finds its programs.
type embedded struct {
	data   string
	binDir string
}

func (e *embedded) flags(f *pflag.FlagSet) {
	f.StringVar(&e.data, "data", defaultData(), "directory of the embedded stack (also LONGALIGN_DATA)")
	f.StringVar(&e.binDir, "bin-dir", "", "directory with the devstack and worker programs (default: beside starter)")
}

const ownData = ".longalign"

func defaultData() string {
	if d := os.Getenv("LONGALIGN_DATA"); d != "" {
		return d
	}
	return ownData
}

// flag is what a printed command needs to find the same directory.
func (e *embedded) flag() string {
	if e.data == ownData || e.data == os.Getenv("LONGALIGN_DATA") {
		return ""
	}
	return " --data " + e.data
}

// point points this process to the stack that runs on the data directory, unless another Temporal is named. A directory
// that was asked for and on which none runs is an error: whatever else listens on this machine is not meant.
func (e *embedded) point(c activities.Connection) error {
	if c.Address != "" || os.Getenv("TEMPORAL_ADDRESS") != "" {
		return nil
	}
	if ep, ok := e.running(); ok {
		return use(ep)
	}
	if e.data != ownData {
		return usageError{fmt.Errorf("no embedded stack runs on %s; start it with starter dev --data %s, or name a Temporal with --address", e.data, e.data)}
	}
	return nil
}

// program finds a program that belongs to starter.
func (e *embedded) program(name string) (string, error) {
	dir := e.binDir
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not beside starter (%s); build it with make build, or say where it is with --bin-dir", name, path)
	}
	return path, nil
}

// startStack starts Temporal, its UI and the S3 gateway.
func (e *embedded) startStack(ctx context.Context, notices io.Writer) (*testenv.Stack, error) {
	bin, err := e.program("devstack")
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(e.data)
	if err != nil {
		return nil, err
	}
	stack, err := testenv.Start(ctx, testenv.Options{Bin: bin, Dir: dir, Notices: notices})
	if err != nil && strings.Contains(err.Error(), "address already in use") {
		// Another program took a port between the look and the start.
		return testenv.Start(ctx, testenv.Options{Bin: bin, Dir: dir, Notices: notices, AnyPorts: true})
	}
	return stack, err
}

// running returns the endpoint of an embedded stack that another process runs on the data directory.
func (e *embedded) running() (testenv.Endpoint, bool) {
	ep, err := testenv.ReadEndpoint(filepath.Join(e.data, "endpoint.json"))
	if err != nil || !alive(ep.PID) {
		return testenv.Endpoint{}, false
	}
	return ep, true
}

// storePrefix is where in the bucket the embedded stack's artifacts are.
const storePrefix = "artifacts"

// use points this process and its children to the stack.
func use(ep testenv.Endpoint) error {
	env, err := ep.Env()
	if err != nil {
		return err
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return os.Setenv("LONGALIGN_STORE", ep.StoreURI(storePrefix))
}

// supervisor keeps one worker process alive: one that dies is started again.
type supervisor struct {
	bin, data string
	notices   io.Writer

	mu      sync.Mutex
	current *exec.Cmd
	stdin   io.Closer
	ended   bool
	done    chan struct{}
}

// startWorker starts a worker for all queues and waits until it polls.
func (e *embedded) startWorker(ctx context.Context, notices io.Writer) (*supervisor, error) {
	bin, err := e.program("worker")
	if err != nil {
		return nil, err
	}
	data, err := filepath.Abs(e.data)
	if err != nil {
		return nil, err
	}
	s := &supervisor{bin: bin, data: data, notices: notices, done: make(chan struct{})}
	exited, err := s.launch(ctx)
	if err != nil {
		return nil, err
	}
	go s.watch(exited)
	return s, nil
}

// launch starts the process; the returned channel gives its end.
func (s *supervisor) launch(ctx context.Context) (<-chan error, error) {
	log, err := os.OpenFile(filepath.Join(s.data, "worker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.bin, "--stdin", "--scratch", filepath.Join(s.data, "scratch"))
	cmd.Stderr = log
	cmd.SysProcAttr = ownGroup()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	ready, exited := make(chan bool, 1), make(chan error, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadBytes('\n')
		var state struct{ Ready bool }
		ready <- json.Unmarshal(line, &state) == nil && state.Ready
		_, _ = io.Copy(io.Discard, stdout)
		exited <- cmd.Wait()
	}()
	s.mu.Lock()
	s.current, s.stdin = cmd, stdin
	s.mu.Unlock()
	select {
	case ok := <-ready:
		if ok {
			return exited, nil
		}
		err := <-exited
		return nil, fmt.Errorf("the worker ended before it was ready (%w); its last words:\n%s", err, lastWords(log.Name()))
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		return nil, ctx.Err()
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("the worker was not ready within two minutes; see %s", log.Name())
	}
}

// watch starts the worker again when it ends unasked.
func (s *supervisor) watch(exited <-chan error) {
	defer close(s.done)
	for {
		err := <-exited
		for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
			s.mu.Lock()
			ended := s.ended
			s.mu.Unlock()
			if ended {
				return
			}
			fmt.Fprintf(s.notices, "the worker ended (%v); starting another, which goes on where it was\n", err)
			var launchErr error
			if exited, launchErr = s.launch(context.Background()); launchErr == nil {
				break
			}
			err = launchErr
			time.Sleep(wait)
		}
	}
}

// stop ends the worker: it saves what runs and hands it over.
func (s *supervisor) stop() {
	s.mu.Lock()
	s.ended = true
	stdin := s.stdin
	s.mu.Unlock()
	if stdin != nil {
		stdin.Close()
	}
	select {
	case <-s.done:
	case <-time.After(40 * time.Second):
		s.mu.Lock()
		_ = s.current.Process.Kill()
		s.mu.Unlock()
	}
}

func lastWords(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-1500):])
}

// stackAndWorker is the embedded stack with its worker.
type stackAndWorker struct {
	stack  *testenv.Stack
	worker *supervisor
}

// start starts both and points this process to them.
func (e *embedded) start(ctx context.Context, notices io.Writer) (*stackAndWorker, error) {
	if ep, ok := e.running(); ok {
		return nil, fmt.Errorf("an embedded stack runs on %s already (process %d, UI %s); leave --embedded out to use it, or choose another --data", e.data, ep.PID, ep.UI)
	}
	stack, err := e.startStack(ctx, notices)
	if err != nil {
		return nil, err
	}
	if err := use(stack.Endpoint()); err != nil {
		return nil, errors.Join(err, stack.Stop())
	}
	w, err := e.startWorker(ctx, notices)
	if err != nil {
		return nil, errors.Join(err, stack.Stop())
	}
	return &stackAndWorker{stack, w}, nil
}

func (s *stackAndWorker) stop() error {
	s.worker.stop()
	return s.stack.Stop()
}
