package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	startTimeout = 90 * time.Second
	stopTimeout  = 30 * time.Second
	tailLines    = 15
)

// Options say which devstack to start, and where.
type Options struct {
	Bin      string    // the devstack binary: see Find and Build
	Dir      string    // keeps everything; started again on the same directory, nothing is lost
	AnyPorts bool      // take free ports at the first start instead of 7233, 8233 and 7070
	Headless bool      // without the Web UI
	Args     []string  // further flags
	Notices  io.Writer // what devstack tells people, such as a port being taken; nil: nothing
}

// Stack is a running devstack. It ends with the process that started it, however that ends.
type Stack struct {
	options  Options
	endpoint Endpoint
	cmd      *exec.Cmd
	stdin    io.Closer
	exited   chan struct{}
	err      error // how it ended; valid once exited is closed
}

// Start starts a devstack and waits until its servers answer. The context bounds the start, not the life.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Bin == "" || o.Dir == "" {
		return nil, errors.New("start devstack: Options.Bin and Options.Dir are required")
	}
	args := append([]string{"--dir", o.Dir}, o.Args...)
	if o.AnyPorts {
		args = append(args, "--port", "0", "--ui-port", "0", "--s3-port", "0")
	}
	if o.Headless {
		args = append(args, "--headless")
	}
	s := &Stack{options: o, cmd: exec.Command(o.Bin, args...), exited: make(chan struct{})}
	s.cmd.SysProcAttr = dieWithParent()
	notices := &tail{also: o.Notices}
	ready := &firstLine{found: make(chan string, 1)}
	s.cmd.Stdout, s.cmd.Stderr = ready, notices
	var err error
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start devstack: %w", err)
	}
	if err := s.launch(); err != nil {
		return nil, fmt.Errorf("start devstack: %w", err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("its servers did not answer within %v", startTimeout))
	defer cancel()
	select {
	case line := <-ready.found:
		if s.endpoint, err = ReadEndpoint(line); err == nil {
			return s, nil
		}
		err = fmt.Errorf("start %s: %w", o.Bin, err)
	case <-s.exited:
		err = fmt.Errorf("start devstack: it ended (%v)%s", s.err, s.explain(notices))
	case <-ctx.Done():
		err = fmt.Errorf("start devstack: %w%s", context.Cause(ctx), s.explain(notices))
	}
	return nil, errors.Join(err, s.Kill())
}

// launch starts the process and waits for it on a thread of its own: on Linux the parent-death signal is sent when the
// thread that started the child ends, so that thread must live as long as the child.
func (s *Stack) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := s.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	return <-started
}

// explain says what devstack said: its notices, or else the end of its log.
func (s *Stack) explain(notices *tail) string {
	if text := notices.String(); text != "" {
		return ":\n" + text
	}
	name := filepath.Join(s.options.Dir, "devstack.log")
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("; the end of %s:\n%s", name, lastLines(string(b)))
}

// Endpoint says where its servers are.
func (s *Stack) Endpoint() Endpoint { return s.endpoint }

// Exited is closed when devstack has ended, for whatever reason.
func (s *Stack) Exited() <-chan struct{} { return s.exited }

// Wait waits until devstack has ended and says how.
func (s *Stack) Wait() error {
	<-s.exited
	return s.err
}

// Stop ends devstack cleanly and waits for it.
func (s *Stack) Stop() error {
	s.stdin.Close() // an error means that it is closed already: the process has ended
	select {
	case <-s.exited:
		if s.err != nil {
			return fmt.Errorf("stop devstack: %w; see %s", s.err, filepath.Join(s.options.Dir, "devstack.log"))
		}
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("stop devstack: still running after %v, killed", stopTimeout), s.Kill())
	}
}

// Kill ends devstack at once, as a crash would, and waits for it.
func (s *Stack) Kill() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill devstack: %w", err)
	}
	<-s.exited
	return nil
}

// Restart starts a devstack that has ended again, on the same directory and, if they are still free, the same ports.
func (s *Stack) Restart(ctx context.Context) (*Stack, error) {
	select {
	case <-s.exited:
		return Start(ctx, s.options)
	default:
		return nil, errors.New("restart devstack: it is still running: Stop or Kill it first")
	}
}

// firstLine hands over the first line written to it and drops the rest.
type firstLine struct {
	buf   bytes.Buffer
	done  bool
	found chan string
}

func (w *firstLine) Write(p []byte) (int, error) {
	if !w.done {
		w.buf.Write(p)
		if line, _, ok := strings.Cut(w.buf.String(), "\n"); ok {
			w.done = true
			w.found <- line
		}
	}
	return len(p), nil
}

// tail keeps the last lines written to it and passes everything on.
type tail struct {
	also io.Writer
	mu   sync.Mutex
	text string
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.text = lastLines(w.text + string(p))
	w.mu.Unlock()
	if w.also != nil {
		return w.also.Write(p)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}

func lastLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines-1):], "")
}
