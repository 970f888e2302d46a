package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// Names under which activities that are no stages are registered.
const (
	ResolveName        = "resolve"
	AwaitName          = "await-stage"
	DescribeDeviceName = "describe-device"
	RecordRunName      = "record-run"
	// EndpointPredictionsName is the predictions stage where an endpoint answers: it needs no device.
	EndpointPredictionsName = "predictions-by-endpoint"
)

// Device describes the device of a gpu worker.
type Device = gpu.Info

// ActivityName is the name under which the activity that makes a call's result is registered. It decides on the task queue.
func ActivityName(call Call) string {
	if _, ok := call.Inputs["checkpoint"]; call.Stage == "predictions" && !ok {
		return EndpointPredictionsName
	}
	return call.Stage
}

// DescribeDevice says which device a gpu worker trains on. Action keys of training and
// predictions contain its class.
func (a *Activities) DescribeDevice(ctx context.Context, name string) (Device, error) {
	d, err := a.device(ctx, name, "")
	if err != nil {
		a.watch(err)
		return Device{}, boundary(ctx, "describe device", err)
	}
	defer d.Close()
	return d.Info(), nil
}

// deviceFault is a failure of a device, its driver or its libraries, which says whether the same work may succeed on another
// machine, and whether this process can use the device any more.
type deviceFault interface {
	error
	Elsewhere() bool
	Sticky() bool
}

// InUse tells whether a device cannot be opened because another process has it.
func InUse(err error) bool {
	var used interface{ InUse() bool }
	return errors.As(err, &used) && used.InUse()
}

// watch ends the worker when a failure leaves this process unable to use its device: a new process can.
func (a *Activities) watch(err error) {
	var fault deviceFault
	if errors.As(err, &fault) && fault.Sticky() && a.DeviceLost != nil {
		a.DeviceLost(err)
	}
}

// device opens a device and checks that it is of the class that results were promised for.
func (a *Activities) device(ctx context.Context, name, class string) (gpu.Device, error) {
	if name == "" {
		name = "auto"
	}
	d, err := a.OpenDevice(ctx, name)
	if err != nil {
		var fault deviceFault
		if errors.As(err, &fault) {
			return nil, fmt.Errorf("device %s: %w", name, err)
		}
		return nil, badConfig("device %s: %w", name, err)
	}
	if class != "" && d.Info().Class != class {
		got := d.Info().Class
		d.Close()
		return nil, &problem{WrongDevice, fmt.Errorf("this worker's device is of class %s, the result was keyed for class %s; start a worker on such a device", got, class)}
	}
	return d, nil
}
