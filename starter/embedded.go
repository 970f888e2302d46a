package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// The worker gets ready within startPatience, and saves what runs within stopPatience.
const (
	startPatience = 2 * time.Minute
	stopPatience  = 40 * time.Second
)

// supervisor keeps one worker process alive: one that dies is started again.
type supervisor struct {
	bin, data string
	notices   io.Writer
	stopping  context.CancelFunc
	ended     chan error // how the last worker ended, once it was asked to
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
	s := &supervisor{bin: bin, data: data, notices: notices, ended: make(chan error, 1)}
	worker, err := s.launch(ctx)
	if err != nil {
		return nil, err
	}
	life, stopping := context.WithCancel(context.Background())
	s.stopping = stopping
	go func() { s.ended <- s.keep(life, worker) }()
	return s, nil
}

// launch starts a worker and waits until it polls.
func (s *supervisor) launch(ctx context.Context) (*testenv.Child, error) {
	log, err := os.OpenFile(filepath.Join(s.data, "worker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.bin, "--stdin", "--scratch", filepath.Join(s.data, "scratch"))
	cmd.Stderr = log
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("not ready within %v; see %s", startPatience, log.Name()))
	defer cancel()
	return testenv.StartChild(ctx, "worker", cmd, log.Name())
}

// keep starts another worker when one ends unasked, and ends the last one when life is over.
func (s *supervisor) keep(life context.Context, worker *testenv.Child) error {
	for {
		select {
		case <-life.Done():
			return worker.Stop(stopPatience)
		case <-worker.Exited():
		}
		err := worker.Wait()
		for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
			if life.Err() != nil {
				return nil
			}
			fmt.Fprintf(s.notices, "the worker ended (%v); starting another, which goes on where it was\n", err)
			next, launchErr := s.launch(life)
			if launchErr == nil {
				worker = next
				break
			}
			err = launchErr
			select {
			case <-life.Done():
			case <-time.After(wait):
			}
		}
	}
}

// stop ends the worker: it saves what runs and hands it over.
func (s *supervisor) stop() error {
	s.stopping()
	return <-s.ended
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

func (s *stackAndWorker) stop() error { return errors.Join(s.worker.stop(), s.stack.Stop()) }
