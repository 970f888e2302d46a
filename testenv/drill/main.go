// Command drill runs a study twice: once undisturbed, once with the worker killed by -9 at random moments
// and the servers stopped and started again, and compares the results. They must be the same, and no interruption may
// cost more than one checkpoint interval.
//
//	make drill
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/longalign/longalign-go/testenv"
)

type options struct {
	spec, bin, data string
	kills           int
	seed            uint64
	timeout         time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.spec, "spec", "starter/examples/demo.yaml", "experiment file")
	flag.StringVar(&o.bin, "bin", "bin", "directory with starter, worker and devstack")
	flag.StringVar(&o.data, "data", ".longalign", "data directory of the undisturbed run; an earlier one there is used")
	flag.IntVar(&o.kills, "kills", 5, "how often the worker is killed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "seed of the moments")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "give up after this long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	say := func(format string, args ...any) {
		fmt.Fprintf(out, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
	}
	say("undisturbed run of %s in %s (reused if it is there)", o.spec, o.data)
	calm, err := undisturbed(ctx, o)
	if err != nil {
		return fmt.Errorf("undisturbed run: %w", err)
	}
	say("undisturbed: %s, %d checkpoints", calm.id, len(calm.checkpoints))

	dir, err := os.MkdirTemp("", "longalign-drill-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	say("disturbed run in %s, seed %d: %d kills and one restart of the servers", dir, o.seed, o.kills)
	rough, err := disturbed(ctx, o, dir, calm, say)
	if err != nil {
		return fmt.Errorf("disturbed run: %w", err)
	}
	return compare(calm, rough, say)
}

// undisturbed makes the reference, or finds it in the store.
func undisturbed(ctx context.Context, o options) (*result, error) {
	stack, err := testenv.Start(ctx, testenv.Options{Bin: filepath.Join(o.bin, "devstack"), Dir: o.data, AnyPorts: true, Headless: true})
	if err != nil {
		return nil, err
	}
	defer stack.Stop()
	env, err := environment(stack)
	if err != nil {
		return nil, err
	}
	w, err := startWorker(o.bin, o.data, env)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	id, err := follow(ctx, o, env, os.Stderr)
	if err != nil {
		return nil, err
	}
	return readResult(ctx, env, id)
}

// disturbed runs the study in an empty directory and keeps breaking it.
func disturbed(ctx context.Context, o options, dir string, calm *result, say func(string, ...any)) (*result, error) {
	random := rand.New(rand.NewPCG(o.seed, 1))
	stack, err := testenv.Start(ctx, testenv.Options{Bin: filepath.Join(o.bin, "devstack"), Dir: dir, AnyPorts: true, Headless: true})
	if err != nil {
		return nil, err
	}
	defer func() { stack.Stop() }()
	env, err := environment(stack)
	if err != nil {
		return nil, err
	}
	w, err := startWorker(o.bin, dir, env)
	if err != nil {
		return nil, err
	}
	defer func() { w.stop() }()

	type outcome struct {
		id  string
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		id, err := follow(ctx, o, env, io.Discard)
		done <- outcome{id, err}
	}()
	// Moments are drawn over the time the undisturbed run took; restarting takes longer, so all of them are met.
	restartAfter := random.IntN(o.kills)
	for k := range o.kills {
		pause := time.Duration(float64(calm.took) / float64(o.kills+1) * (0.4 + 0.9*random.Float64()))
		select {
		case end := <-done:
			return nil, fmt.Errorf("the run ended (%w) before kill %d; use fewer --kills", errors.Join(end.err, errors.New("too early")), k+1)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		say("kill -9 of worker %d (%d of %d)", w.cmd.Process.Pid, k+1, o.kills)
		w.kill()
		if k == restartAfter {
			say("stopping Temporal and the store")
			if err := stack.Stop(); err != nil {
				return nil, err
			}
			if stack, err = stack.Restart(ctx); err != nil {
				return nil, err
			}
			say("started them again at %s", stack.Endpoint().Temporal)
		}
		if w, err = startWorker(o.bin, dir, env); err != nil {
			return nil, err
		}
	}
	select {
	case end := <-done:
		if end.err != nil {
			return nil, end.err
		}
		return readResult(ctx, env, end.id)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// environment is what points starter and worker to the stack.
func environment(stack *testenv.Stack) ([]string, error) {
	env, err := stack.Endpoint().Env()
	if err != nil {
		return nil, err
	}
	env = append(env, "LONGALIGN_STORE="+stack.Endpoint().StoreURI("artifacts"))
	return append(os.Environ(), env...), nil
}

// follow starts the study and waits for its end; it returns the run's ID.
func follow(ctx context.Context, o options, env []string, progress io.Writer) (string, error) {
	start := exec.CommandContext(ctx, filepath.Join(o.bin, "starter"), "run", o.spec, "--detach", "--json", "--data", filepath.Join(os.TempDir(), "longalign-drill-none"))
	start.Env = env
	var out, errs bytes.Buffer
	start.Stdout, start.Stderr = &out, &errs
	if err := start.Run(); err != nil {
		return "", fmt.Errorf("start: %w: %s", err, errs.String())
	}
	var started struct{ ID string }
	if err := json.Unmarshal(out.Bytes(), &started); err != nil {
		return "", fmt.Errorf("start: %w", err)
	}
	temporal, err := dial(ctx, env)
	if err != nil {
		return "", err
	}
	defer temporal.Close()
	for {
		err := temporal.GetWorkflow(ctx, started.ID, "").Get(ctx, nil)
		if err == nil || ctx.Err() != nil || !unavailable(err) {
			return started.ID, err
		}
		fmt.Fprintln(progress, "waiting for Temporal:", err)
		time.Sleep(time.Second)
	}
}

// workerProcess is a worker that the drill may kill.
type workerProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}
}

func startWorker(bin, dir string, env []string) (*workerProcess, error) {
	log, err := os.OpenFile(filepath.Join(dir, "worker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "worker"), "--stdin", "--scratch", filepath.Join(dir, "scratch"))
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &workerProcess{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it is killed on purpose
		close(w.done)
	}()
	return w, nil
}

func (w *workerProcess) kill() {
	_ = w.cmd.Process.Kill()
	<-w.done
}

func (w *workerProcess) stop() {
	w.stdin.Close()
	select {
	case <-w.done:
	case <-time.After(time.Minute):
		w.kill()
	}
}
