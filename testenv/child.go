package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Child is a program that runs for this one: it prints one line when it is ready, ends cleanly when its standard input
// closes, and does not outlive the process that started it.
type Child struct {
	name   string
	ready  string
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

// StartChild starts a program and waits until it is ready; the context bounds that wait, not the program's life. What
// the program says on standard error goes to its Stderr, if that is set: a file directly, so that the program can write
// to it when this one is gone. One that ends or does not get ready in time no longer runs, and is an error with its last
// words, or else the end of its log.
func StartChild(ctx context.Context, name string, cmd *exec.Cmd, log string) (*Child, error) {
	c := &Child{name: name, cmd: cmd, exited: make(chan struct{})}
	cmd.SysProcAttr = dieWithParent()
	first, words := &firstLine{found: make(chan string, 1)}, &tail{also: cmd.Stderr}
	cmd.Stdout = first
	if _, ok := cmd.Stderr.(*os.File); !ok {
		cmd.Stderr = words
	}
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := c.launch(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	select {
	case c.ready = <-first.found:
		return c, nil
	case <-c.exited:
		return nil, fmt.Errorf("start %s: it ended (%v)%s", name, c.err, lastWords(words, log))
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("start %s: %w%s", name, context.Cause(ctx), lastWords(words, log)), c.Kill())
	}
}

// lastWords is what a program said at its end: on standard error, or else in its log.
func lastWords(words *tail, log string) string {
	if text := words.String(); text != "" {
		return ":\n" + text
	}
	b, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("; the end of %s:\n%s", log, lastLines(string(b)))
}

// launch starts the process and waits for it on a thread of its own: on Linux the parent-death signal is sent when the
// thread that started the child ends, so that thread must live as long as the child.
func (c *Child) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	return <-started
}

// Ready is the line by which the program said that it is ready.
func (c *Child) Ready() string { return c.ready }

// Exited is closed when the program has ended, for whatever reason.
func (c *Child) Exited() <-chan struct{} { return c.exited }

// Wait waits until the program has ended and says how.
func (c *Child) Wait() error {
	<-c.exited
	return c.err
}

// Stop asks the program to end and waits for it; one that takes longer than the patience is killed.
func (c *Child) Stop(patience time.Duration) error {
	c.stdin.Close() // an error means that it is closed already: the process has ended
	select {
	case <-c.exited:
		if c.err != nil {
			return fmt.Errorf("stop %s: %w", c.name, c.err)
		}
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("stop %s: still running after %v, killed", c.name, patience), c.Kill())
	}
}

// Kill ends the program at once, as a crash would, and waits for it.
func (c *Child) Kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	<-c.exited
	return nil
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

const tailLines = 15

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
