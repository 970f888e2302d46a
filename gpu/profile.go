package gpu

import (
	"errors"
	"fmt"
)

// ErrOutOfMemory is what an allocation failed for that another plan of memory may avoid.
var ErrOutOfMemory = errors.New("out of memory")

// OpError is the failure of one device operation. It sticks: Sync returns it.
type OpError struct {
	Device string // Info.Kind
	Op     string // the Device method, e.g. "RMSNorm"
	Err    error
}

// Error says which operation of which device failed and why.
func (e *OpError) Error() string { return fmt.Sprintf("%s device: %s: %v", e.Device, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// OpStats counts what one kind of operation did while a profile ran.
type OpStats struct {
	Op      string  // the Device method, e.g. "LinearGradWeight"
	Calls   int64   // number of calls
	Seconds float64 // wall time inside the operation
	FLOPs   float64 // floating-point operations that the result needs, recomputation not counted
	Bytes   float64 // bytes that must be read and written at least once
}

// Profiler is a Device that can account for its time by operation.
type Profiler interface {
	// StartProfile forgets earlier counts and counts from now on.
	StartProfile()
	// StopProfile stops counting and returns the counts, the longest time first.
	StopProfile() []OpStats
}

// Peaks are the measured limits of a device: the two edges of its roofline.
type Peaks struct {
	FLOPS     float64 // float32 multiply-adds a second, times two, all threads
	Bandwidth float64 // bytes a second read from memory, all threads
}

// PeakMeter is a Device that can measure its own limits; it takes under a second.
type PeakMeter interface {
	Peak() Peaks
}
