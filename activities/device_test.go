package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/longalign/longalign-go/gpu"
)

// fault is a device's failure as gpu/cuda makes them.
type fault struct{ elsewhere, sticky bool }

func (f fault) Error() string   { return "cuda: wait: hardware: the last checkpoint is intact" }
func (f fault) Elsewhere() bool { return f.elsewhere }
func (f fault) Sticky() bool    { return f.sticky }

// failing is a device on which updates after the first few fail, and everything that follows.
type failing struct {
	gpu.Device
	updates int
	err     error
	failed  error
}

func (d *failing) AdamW(w, g, m, v gpu.Buffer, p gpu.AdamW) {
	if d.updates--; d.updates < 0 {
		d.failed = &gpu.OpError{Device: "cuda", Op: "AdamW", Err: d.err}
		return
	}
	d.Device.AdamW(w, g, m, v, p)
}

func (d *failing) Sync() error {
	if d.failed != nil {
		return d.failed
	}
	return d.Device.Sync()
}

func TestFailuresOfADeviceAreTyped(t *testing.T) {
	for name, tt := range map[string]struct {
		fault fault
		kind  string
	}{
		"what another machine may do": {fault{true, false}, DeviceUnavailable},
		"a card that is lost":         {fault{true, true}, DeviceUnavailable},
		"a kernel that fails":         {fault{false, true}, DeviceFault},
	} {
		for where, err := range map[string]error{"opening": tt.fault, "a step": fmt.Errorf("step 3: %w", &gpu.OpError{Device: "cuda", Op: "Linear", Err: tt.fault}), "loading a model": badData("model x: %w", tt.fault)} {
			typed := boundary(t.Context(), "checkpoint", err)
			wantType(t, typed, tt.kind, "the last checkpoint is intact")
			var app *temporal.ApplicationError
			if errors.As(typed, &app) && app.NonRetryable() != slices.Contains(NonRetryable, tt.kind) {
				t.Errorf("%s, %s: not to be retried: %v", name, where, app.NonRetryable())
			}
		}
	}
}

func TestADeviceThatCannotBeOpenedIsTriedElsewhere(t *testing.T) {
	p := newTiny(t)
	p.OpenDevice = func(context.Context, string) (gpu.Device, error) { return nil, fault{true, false} }
	var lost []error
	p.DeviceLost = func(err error) { lost = append(lost, err) }
	_, err := p.DescribeDevice(t.Context(), "cuda")
	wantType(t, err, DeviceUnavailable, "device cuda: ")
	if len(lost) > 0 {
		t.Errorf("a device that was never there is lost: %v", lost)
	}
	p.OpenDevice = func(context.Context, string) (gpu.Device, error) {
		return nil, errors.New("device \"tpu\" is not known")
	}
	_, err = p.DescribeDevice(t.Context(), "tpu")
	wantType(t, err, BadConfig, "tpu")
}

// A card that is lost in the middle of a training costs the steps since the checkpoint and nothing else.
func TestATrainingGoesOnAfterItsDeviceWasLost(t *testing.T) {
	p := newTiny(t)
	call := p.training(p.upToBatches(), nil)
	whole := p.OpenDevice
	p.OpenDevice = func(ctx context.Context, name string) (gpu.Device, error) {
		d, err := whole(ctx, name)
		if err != nil {
			return nil, err
		}
		return &failing{Device: d, updates: 3, err: fault{true, true}}, nil
	}
	var lost []error
	p.DeviceLost = func(err error) { lost = append(lost, err) }
	_, err := p.Run(t.Context(), call)
	wantType(t, err, DeviceUnavailable, "AdamW", "the last checkpoint is intact")
	if len(lost) != 1 {
		t.Errorf("the worker was told of %d lost devices", len(lost))
	}
	if s := p.saved(call); s.Step != 2 {
		t.Errorf("the checkpoint is of step %d, want 2", s.Step)
	}
	p.OpenDevice = whole
	ref, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.output(ref, "model.safetensors"), p.undisturbed(); got != want {
		t.Errorf("the model is %s, an undisturbed one %s", got.Digest, want.Digest)
	}
}
