// Command worker serves task queues: it runs workflows and the activities of the stages.
//
//	worker --queues control,cpu,llm,gpu
//
// SIGTERM (or the end of standard input with --stdin) stops it cleanly: running trainings save and are handed over.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/workflows"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// openDevice is another opener in tests.
var openDevice gpu.Opener = devices.Open

// options are what a worker process is told.
type options struct {
	connection activities.Connection
	queues     []string
	scratch    string
	stdin      bool
	share      float64
	grace      time.Duration
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	var o options
	c := &cobra.Command{
		Use:           "worker",
		Short:         "Serve LongAlign task queues",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       artifact.CurrentCode().Version,
		Example: `  worker                                   everything, on the machine's own device
  worker --queues gpu                      only training and predictions
  worker --queues control,cpu --store s3://bucket/prefix --address temporal:7233`,
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), o, stdin, stdout, stderr) },
	}
	o.connection.Flags(c.Flags())
	c.Flags().StringSliceVar(&o.queues, "queues", workflows.Queues, "task queues to serve")
	c.Flags().StringVar(&o.scratch, "scratch", filepath.Join(os.TempDir(), "longalign"), "directory for local copies of artifacts")
	c.Flags().Float64Var(&o.share, "llm-share", 1, "this worker's share of the requests and tokens a minute that experiments allow their endpoints; the shares of all workers on queue llm add up to 1")
	c.Flags().BoolVar(&o.stdin, "stdin", false, "end when standard input closes (a child of starter)")
	c.Flags().DurationVar(&o.grace, "grace", 25*time.Second, "time that running stages get to save when the worker is stopped")
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	return c.ExecuteContext(ctx)
}

func serve(ctx context.Context, o options, stdin io.Reader, stdout, stderr io.Writer) error {
	ctx, cancelCause := context.WithCancelCause(ctx)
	cancel := func() { cancelCause(nil) }
	defer cancel()
	if o.stdin {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	for _, q := range o.queues {
		if !slices.Contains(workflows.Queues, q) {
			return fmt.Errorf("queue %q is not known; queues are %s", q, strings.Join(workflows.Queues, ", "))
		}
	}
	if !(o.share > 0 && o.share <= 1) {
		return fmt.Errorf("--llm-share %g is not above 0 and at most 1", o.share)
	}
	store, err := o.connection.OpenStore(ctx)
	if err != nil {
		return err
	}
	scratch, release, err := activities.OpenScratch(o.scratch)
	if err != nil {
		return fmt.Errorf("%w; choose another with --scratch", err)
	}
	defer release()
	temporal, err := o.connection.Dial(ctx, 5*time.Minute, stderr)
	if err != nil {
		return err
	}
	defer temporal.Close()
	a := &activities.Activities{Store: store, OpenDevice: openDevice, Scratch: scratch, Temporal: temporal}
	a.Endpoints.Share = o.share
	a.DeviceLost = func(err error) { cancelCause(&deviceLostError{err}) }
	workers, err := start(temporal, a, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "{\"ready\":true,\"queues\":\"%s\",\"store\":%q,\"pid\":%d}\n", strings.Join(o.queues, ","), store.URI(), os.Getpid())
	<-ctx.Done()
	// All queues stop at once: one after the other, the grace would add up.
	done := make(chan struct{})
	for _, w := range workers {
		go func() { w.Stop(); done <- struct{}{} }()
	}
	for range workers {
		<-done
	}
	var lost *deviceLostError
	if errors.As(context.Cause(ctx), &lost) {
		return lost
	}
	return nil
}

// deviceLostError ends a worker whose process cannot use its device any more.
type deviceLostError struct{ err error }

func (e *deviceLostError) Error() string {
	return fmt.Sprintf("this process cannot use its device any more, a new worker can: %v", e.err)
}

func (e *deviceLostError) Unwrap() error { return e.err }

// start starts one poller set a queue. On gpu, stages run one at a time.
func start(temporal client.Client, a *activities.Activities, o options) ([]worker.Worker, error) {
	var workers []worker.Worker
	for _, q := range o.queues {
		wo := worker.Options{WorkerStopTimeout: o.grace, DisableRegistrationAliasing: true, MaxConcurrentActivityExecutionSize: concurrency(q),
			// Trainings keep all processors busy; a workflow that waits for one is no deadlock.
			DeadlockDetectionTimeout: 10 * time.Second,
			// A heartbeat a second: a killed training is taken up knowing how far it was.
			DefaultHeartbeatThrottleInterval: time.Second, MaxHeartbeatThrottleInterval: time.Second}
		if q != workflows.QueueControl {
			wo.DisableWorkflowWorker = true
		}
		w := worker.New(temporal, q, wo)
		workflows.Register(w, q, a)
		if err := w.Start(); err != nil {
			for _, started := range workers {
				started.Stop()
			}
			return nil, fmt.Errorf("queue %s: %w", q, err)
		}
		workers = append(workers, w)
	}
	return workers, nil
}

func concurrency(queue string) int {
	switch queue {
	case workflows.QueueGPU:
		return 1
	case workflows.QueueCPU:
		return 4
	}
	return 32
}
