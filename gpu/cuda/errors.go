package cuda

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/longalign/longalign-go/gpu"
)

// Kind says what went wrong with a card, and so what to do.
type Kind string

// Kinds of failure.
const (
	NoDriver        Kind = "no driver"          // the machine has no libcuda
	WrongDriver     Kind = "wrong driver"       // too old, or not the kernel module's
	NoDevice        Kind = "no device"          // a driver, but no such card
	Architecture    Kind = "architecture"       // a card older than compute capability 8.0, or newer than compiler and driver know
	NoCompiler      Kind = "no compiler"        // NVRTC was not found or fails
	NotCompiled     Kind = "not compiled"       // NVRTC does not take a kernel: a mistake of this program, or of that release
	OutOfMemory     Kind = "out of memory"      // on the card
	OutOfHostMemory Kind = "out of host memory" // pinned
	Hardware        Kind = "hardware"           // uncorrectable memory or link error
	DeviceLost      Kind = "device lost"        // the card stopped answering
	KernelFailed    Kind = "kernel failed"      // a kernel accessed what it must not: a mistake of this program
	NotReady        Kind = "not ready"          // a service that the card depends on has not started
	Busy            Kind = "busy"               // another process has the card
	NoLock          Kind = "no lock"            // the file by which processes exclude each other cannot be used
	TrialFailed     Kind = "trial failed"       // Hopper's kernels faulted when they were tried: this process has lost the card
	Refused         Kind = "refused by driver"  // any other code
)

// Error is a failure of the card, its driver or libraries.
type Error struct {
	Kind Kind
	Op   string // what was tried
	Code int    // the driver's, 0 where there is none
	Text string // the driver's name of the code, or what was looked for

	Asked, Free, Total int64 // bytes, of OutOfMemory
}

var advice = map[Kind]string{
	NoDriver:        "install NVIDIA's driver, or use device: host",
	WrongDriver:     "update the driver to 525 or later and restart the machine, or use device: host",
	NoDevice:        "use device: host, or check nvidia-smi and CUDA_VISIBLE_DEVICES",
	Architecture:    "use a card of compute capability 8.0 or later (A100, H100), or device: host",
	NoCompiler:      "install the CUDA toolkit's libnvrtc (11.8, 12 or 13), activate the Python environment that has it (one with PyTorch does), or name its folder in LONGALIGN_CUDA_LIBRARIES",
	NotCompiled:     "report this with the kernel's name, and name the folder of another release of libnvrtc (12 compiles all kernels) in LONGALIGN_CUDA_LIBRARIES",
	OutOfMemory:     "use recompute: auto and offload: auto, smaller micro-batches, or a card with more memory",
	OutOfHostMemory: "free memory of the host, raise the limit of locked memory (ulimit -l), or use offload: none",
	Hardware:        "the card needs a reset by whoever runs the machine; the last checkpoint is intact, resume on another",
	DeviceLost:      "restart the worker, and the machine if it happens again; the last checkpoint is intact",
	KernelFailed:    "the last checkpoint is intact; report this with the operation's name",
	NotReady:        "start nvidia-fabricmanager where cards are joined by NVSwitch (systemctl status nvidia-fabricmanager), or wait for it; until then another machine, or device: host",
	Busy:            "wait for the process that has the card (nvidia-smi names it), or use another card",
	NoLock:          "make that file or its folder writable, or name another folder in TMPDIR, the same for all who use the card",
	TrialFailed:     "start the worker again: it then keeps to the kernels of every card, as LONGALIGN_CUDA_ATTENTION=mma does from the start",
	Refused:         "restart the worker; the last checkpoint is intact",
}

// Error says what failed and what to do.
func (e *Error) Error() string {
	s := fmt.Sprintf("cuda: %s: %s", e.Op, e.Kind)
	if e.Kind == OutOfMemory && e.Asked > 0 {
		s += fmt.Sprintf(": %.1f MiB asked for, %.1f of %.1f GiB free", float64(e.Asked)/(1<<20), float64(e.Free)/(1<<30), float64(e.Total)/(1<<30))
	} else if e.Kind == OutOfHostMemory && e.Asked > 0 {
		s += fmt.Sprintf(": %.1f MiB of pinned memory asked for", float64(e.Asked)/(1<<20))
	} else if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Code != 0 {
		s += fmt.Sprintf(" (code %d)", e.Code)
	}
	return s + "; " + advice[e.Kind]
}

// Is reports true for gpu.ErrOutOfMemory where memory ran out.
func (e *Error) Is(target error) bool {
	return target == gpu.ErrOutOfMemory && (e.Kind == OutOfMemory || e.Kind == OutOfHostMemory)
}

// Elsewhere reports whether the same work may succeed on another machine.
func (e *Error) Elsewhere() bool { return e.Kind != KernelFailed }

// Sticky reports whether the process cannot use the card any more: the worker should end and be started again.
func (e *Error) Sticky() bool {
	return e.Kind == Hardware || e.Kind == DeviceLost || e.Kind == KernelFailed || e.Kind == TrialFailed
}

// InUse reports whether a card is there and works, for another process.
func (e *Error) InUse() bool { return e.Kind == Busy }

// Absent reports whether there is no card here that could be opened, as against one that fails.
func (e *Error) Absent() bool { return e.Kind == NoDriver || e.Kind == NoDevice }

var kinds = map[int]Kind{
	2: OutOfMemory, 100: NoDevice, 101: NoDevice,
	34: WrongDriver, 35: WrongDriver, 222: WrongDriver, 500: WrongDriver, 803: WrongDriver, 804: WrongDriver,
	209: Architecture, 218: Architecture, 221: NoCompiler,
	214: Hardware, 220: Hardware, 226: Hardware,
	46: Busy, 216: Busy,
	802: NotReady,
	709: DeviceLost, 999: DeviceLost,
	700: KernelFailed, 702: KernelFailed, 710: KernelFailed, 714: KernelFailed, 715: KernelFailed, 716: KernelFailed, 717: KernelFailed, 718: KernelFailed, 719: KernelFailed,
}

// codeName returns the driver's name of a code, "" where it has none. A build with the tag cuda sets it.
var codeName = func(int) string { return "" }

// failure makes an *Error of what the driver or its binding said, nil of nil.
func failure(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Kind: Refused, Op: op, Text: err.Error()}
	// The binding's code is an integer type of its own that it does not export.
	for x := err; x != nil; x = errors.Unwrap(x) {
		if v := reflect.ValueOf(x); v.Kind() == reflect.Int {
			e.Code = int(v.Int())
			if k, ok := kinds[e.Code]; ok {
				e.Kind = k
			}
			if name := codeName(e.Code); name != "" {
				e.Text = name
			}
			break
		}
	}
	return e
}

// code is a driver's result from C.
type code int

func (c code) Error() string { return fmt.Sprintf("driver result %d", int(c)) }

func result(op string, c int) error {
	if c == 0 {
		return nil
	}
	return failure(op, code(c))
}
