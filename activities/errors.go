package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// Types of the errors that activities return. Workflows and people tell failures apart by them.
const (
	// BadConfig: the experiment asks for something impossible. Not retried.
	BadConfig = "BadConfig"
	// BadData: an input file or artifact holds what cannot be used. Not retried.
	BadData = "BadData"
	// CorruptArtifact: a stored blob does not match its digest. Not retried.
	CorruptArtifact = "CorruptArtifact"
	// MissingArtifact: a manifest or blob is not in the store. Not retried.
	MissingArtifact = "MissingArtifact"
	// Fenced: a newer attempt owns the checkpoint pointer; this one must end. Not retried.
	Fenced = "Fenced"
	// Diverged: the loss is not finite or exploded. Not retried; the last good checkpoint is kept.
	Diverged = "Diverged"
	// Handover: the worker is being stopped; the work was saved and another attempt goes on. Retried.
	Handover = "Handover"
	// DiskFull: no space where the worker or the store writes. Retried, so that freeing space is enough.
	DiskFull = "DiskFull"
	// StoreUnavailable: the store does not answer. Retried.
	StoreUnavailable = "StoreUnavailable"
	// WrongDevice: this worker's device is of another class than the call was keyed for. Retried elsewhere.
	WrongDevice = "WrongDevice"
	// DeviceUnavailable: the device, its driver or its libraries fail on this worker. Retried, on another worker where there is one.
	DeviceUnavailable = "DeviceUnavailable"
	// DeviceFault: the device refused what this program asked of it; it would elsewhere too. Not retried.
	DeviceFault = "DeviceFault"
	// EndpointUnavailable: a language model's service does not answer, or not in time. Retried.
	EndpointUnavailable = "EndpointUnavailable"
	// Unexpected: a cause that none of these names. Tried a few times, then given up.
	Unexpected = "Unexpected"
	// BudgetExceeded: the next paid request would pass the cap. Not retried.
	BudgetExceeded = "BudgetExceeded"
)

// NonRetryable lists the error types that trying again cannot mend.
var NonRetryable = []string{BadConfig, BadData, CorruptArtifact, MissingArtifact, Fenced, Diverged, DeviceFault, BudgetExceeded}

// problem is an error with its type, made where the cause is known.
type problem struct {
	kind string
	err  error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

func badConfig(format string, args ...any) error {
	return &problem{BadConfig, fmt.Errorf(format, args...)}
}

func badData(format string, args ...any) error {
	return &problem{BadData, fmt.Errorf(format, args...)}
}

func handover(format string, args ...any) error {
	return &problem{Handover, fmt.Errorf(format, args...)}
}

// unexpectedTries is how often an activity is tried that fails for an unexpected cause.
const unexpectedTries = 5

// unavailable tells whether err is an outage of the store, of Temporal or of the network.
func unavailable(err error) bool {
	var network net.Error
	var service serviceerror.ServiceError
	return errors.Is(err, artifact.ErrUnavailable) || errors.Is(err, artifact.ErrDenied) || errors.As(err, &network) || errors.As(err, &service) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// stopped tells whether the activity's worker is being stopped.
func stopped(ctx context.Context) bool {
	if !activity.IsActivity(ctx) {
		return false
	}
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return true
	default:
		return false
	}
}

// boundary types err for Temporal. It is called once, where an activity returns.
func boundary(ctx context.Context, operation string, err error) error {
	if err == nil {
		return nil
	}
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return err
	}
	var p *problem
	var corrupt *artifact.CorruptError
	var fault deviceFault
	kind, advice := "", ""
	interrupted := ctx.Err() != nil && errors.Is(err, ctx.Err()) // whatever was being read or computed then is not at fault
	switch {
	case interrupted && stopped(ctx):
		kind, err = Handover, errors.New("the worker was stopped before the stage could save; another attempt goes on at what was saved last")
	case interrupted:
		return ctx.Err() // the workflow cancelled it, or the server gave it to another attempt
	case errors.As(err, &fault) && fault.Elsewhere(): // whatever it hindered
		kind = DeviceUnavailable
	case fault != nil:
		kind = DeviceFault
	case errors.As(err, &p):
		kind = p.kind
	case errors.As(err, &corrupt):
		kind, advice = CorruptArtifact, "; run starter verify, then starter verify --repair"
	case errors.Is(err, artifact.ErrFenced):
		kind = Fenced
	case errors.Is(err, artifact.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, advice = DiskFull, "; free some space, the stage goes on by itself"
	case errors.Is(err, artifact.ErrNotFound):
		kind, advice = MissingArtifact, "; the artifact was deleted or the store is another one: run the stage's experiment again"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		kind = BadData
	case errors.As(err, new(*json.SyntaxError)), errors.As(err, new(*json.UnmarshalTypeError)):
		kind = BadData
	case ctx.Err() != nil:
		return ctx.Err()
	case unavailable(err):
		kind = StoreUnavailable
	default:
		kind = Unexpected
	}
	// What nobody foresaw may pass by itself; when it does not, waiting for ever would hide it.
	nonRetryable := slices.Contains(NonRetryable, kind) || kind == Unexpected && activity.IsActivity(ctx) && activity.GetInfo(ctx).Attempt >= unexpectedTries
	// A message above 4 KiB would be cut by the server in its middle.
	// Pure packages begin with their own names, which stages have too.
	msg := operation + ": " + strings.TrimPrefix(err.Error(), operation+": ") + advice
	if len(msg) > 3500 {
		msg = msg[:3500] + " …"
	}
	options := temporal.ApplicationErrorOptions{NonRetryable: nonRetryable}
	if kind == Handover {
		options.NextRetryDelay = time.Second
	}
	return temporal.NewApplicationErrorWithOptions(msg, kind, options)
}
