package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/testenv"
	"github.com/longalign/longalign-go/workflows"
)

func TestWhatCannotBeServedIsSaid(t *testing.T) {
	for _, name := range []string{"TEMPORAL_ADDRESS", "LONGALIGN_STORE"} {
		t.Setenv(name, "")
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a queue that is not known":  {[]string{"--queues", "tpu"}, `queue "tpu" is not known; queues are control, cpu, llm, gpu`},
		"no store":                   {nil, "set --store or LONGALIGN_STORE"},
		"a flag that is not known":   {[]string{"--que", "cpu"}, "unknown flag: --que"},
		"a scratch that is no place": {[]string{"--store", "mem://w", "--scratch", "/dev/null/x"}, "choose another with --scratch"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), tt.args, strings.NewReader(""), &out, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() > 0 {
				t.Errorf("%v, %q; want %q", err, out.String(), tt.want)
			}
		})
	}
}

func TestAWorkerIsReadyAndEndsWhenItsStandardInputCloses(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	ep := testenv.Shared(t)
	_, namespace := testenv.Namespace(t, ep, workflows.SearchAttributes)
	stdin, parent := io.Pipe()
	stdout, child := io.Pipe()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		ended <- run(ctx, []string{"--stdin", "--address", ep.Temporal, "--namespace", namespace, "--store", "file://" + filepath.Join(t.TempDir(), "store"),
			"--scratch", t.TempDir(), "--queues", "control,cpu", "--grace", "5s"}, stdin, child, io.Discard)
		child.Close()
	}()
	var ready struct {
		Ready  bool
		Queues string
		PID    int
	}
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil || !ready.Ready || ready.Queues != "control,cpu" || ready.PID == 0 {
		t.Fatalf("%+v, %v", ready, err)
	}
	parent.Close()
	if err := <-ended; err != nil || ctx.Err() != nil {
		t.Errorf("it ended by %v", err)
	}
}

// lost is a card that the process can use no more.
type lost struct{}

func (lost) Error() string   { return "cuda: wait: device lost (code 999)" }
func (lost) Elsewhere() bool { return true }
func (lost) Sticky() bool    { return true }

func TestAWorkerThatLostItsDeviceEndsWithTheReason(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	openDevice = func(context.Context, string) (gpu.Device, error) { return nil, lost{} }
	t.Cleanup(func() { openDevice = devices.Open })
	ep := testenv.Shared(t)
	temporal, namespace := testenv.Namespace(t, ep, workflows.SearchAttributes)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stdout, child := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--address", ep.Temporal, "--namespace", namespace, "--store", "file://" + filepath.Join(t.TempDir(), "store"),
			"--scratch", t.TempDir(), "--queues", "control,gpu", "--grace", "5s"}, strings.NewReader(""), child, io.Discard)
		child.Close()
	}()
	if err := json.NewDecoder(stdout).Decode(new(struct{})); err != nil {
		t.Fatal(err)
	}
	asking := func(ctx workflow.Context) error {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: workflows.QueueGPU, StartToCloseTimeout: time.Minute})
		return workflow.ExecuteActivity(ctx, activities.DescribeDeviceName, "cuda").Get(ctx, nil)
	}
	w := sdk.New(temporal, "asking", sdk.Options{})
	w.RegisterWorkflowWithOptions(asking, workflow.RegisterOptions{Name: "asking"})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "asking"}, "asking"); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	if err == nil || !strings.Contains(err.Error(), "device lost") || ctx.Err() != nil {
		t.Errorf("it ended by %v", err)
	}
}
