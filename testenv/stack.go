package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	startTimeout = 90 * time.Second
	stopTimeout  = 30 * time.Second
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
	*Child
	options  Options
	endpoint Endpoint
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
	cmd := exec.Command(o.Bin, args...)
	cmd.Stderr = o.Notices
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("its servers did not answer within %v", startTimeout))
	defer cancel()
	child, err := StartChild(ctx, program, cmd, logFile(o.Dir))
	if err != nil {
		return nil, err
	}
	endpoint, err := ReadEndpoint(child.Ready())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", o.Bin, err), child.Kill())
	}
	return &Stack{child, o, endpoint}, nil
}

// logFile is where devstack on a directory writes what it does.
func logFile(dir string) string { return filepath.Join(dir, "devstack.log") }

// Endpoint says where its servers are.
func (s *Stack) Endpoint() Endpoint { return s.endpoint }

// Stop ends devstack cleanly and waits for it.
func (s *Stack) Stop() error {
	if err := s.Child.Stop(stopTimeout); err != nil {
		return fmt.Errorf("%w; see %s", err, logFile(s.options.Dir))
	}
	return nil
}

// Restart starts a devstack that has ended again, on the same directory and, if they are still free, the same ports.
func (s *Stack) Restart(ctx context.Context) (*Stack, error) {
	select {
	case <-s.Exited():
		return Start(ctx, s.options)
	default:
		return nil, errors.New("restart devstack: it is still running: Stop or Kill it first")
	}
}
