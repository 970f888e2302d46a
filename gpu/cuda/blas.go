//go:build cuda

package cuda

// #include "card.h"
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unsafe"

	"github.com/longalign/longalign-go/gpu"
)

// workspaceBytes is what the library may use for split products.
const workspaceBytes = 32 << 20

// matrixLibrary is cuBLASLt. It chooses an algorithm for a shape once, so that equal calls give equal bits.
type matrixLibrary struct {
	version   string
	handle    unsafe.Pointer
	workspace uint64
	plans     map[C.blas_shape]*plan
	clock     uint64 // of uses of plans
}

// mostPlans bounds the plans that are kept: the last chunk of a loss has another number of rows in each step. A plan that was
// forgotten is made again, the same, for the choice depends on the shape alone.
const mostPlans = 512

// plan is a shape with its algorithm.
type plan struct {
	c    unsafe.Pointer // nil where the library has no algorithm
	used uint64
}

// openMatrixLibrary returns nil where no library can be used: the device then multiplies with kernels of its own, and says so.
func openMatrixLibrary(c *card) (*matrixLibrary, error) {
	var tried []string
	for _, file := range candidates("cublasLt", driverMajor(), folders()) {
		path := C.CString(file)
		var version C.size_t
		why := C.blas_open(path, &version)
		C.free(unsafe.Pointer(path))
		if why != nil {
			tried = append(tried, fmt.Sprintf("%s: %s", file, C.GoString(why)))
			continue
		}
		l := &matrixLibrary{version: fmt.Sprint(version), plans: map[C.blas_shape]*plan{}}
		if r := C.blas_create(c.c(), &l.handle); r != 0 {
			return nil, c.blasFailed("start "+file, int(r))
		}
		var err error
		l.workspace, err = c.alloc(workspaceBytes)
		return l, err
	}
	slog.Warn("matrix products run on kernels of this program, at a part of the speed, for cuBLASLt cannot be loaded; install it, or name its folder in LONGALIGN_CUDA_LIBRARIES",
		"why", strings.Join(tried, "; "))
	return nil, nil
}

// blasFailed is the error of a call to the library. Its status does not tell a mistake of the call from a kernel that failed before
// it, so that the driver is asked.
func (c *card) blasFailed(op string, status int) error {
	if status < 0 { // the driver's own
		return result(op, -status)
	}
	var e *Error
	if errors.As(result(op, int(C.card_settle(c.c(), c.s()))), &e) {
		e.Text += fmt.Sprintf(", seen in cuBLASLt status %d", status)
		return e
	}
	e = &Error{Kind: Refused, Op: op, Text: fmt.Sprintf("cuBLASLt status %d", status)}
	if status == C.status_alloc_failed {
		e.Kind = OutOfHostMemory
		if free, _, err := c.memory(); err == nil && free < workspaceBytes {
			e.Kind = OutOfMemory
		}
	}
	return e
}

// close frees the library's memory on the host; that on the card goes with the context.
func (l *matrixLibrary) close(c *card) {
	if l == nil {
		return
	}
	for _, plan := range l.plans {
		C.blas_forget(plan.c)
	}
	C.blas_close(c.c(), l.handle)
}

// alignment is the largest power of two up to 256 that divides an address, as the library counts it.
func alignment(address uint64) C.uint {
	a := C.uint(256)
	for uint64(a) > 1 && address%uint64(a) != 0 {
		a /= 2
	}
	return a
}

// multiplies plans p, where that was not done before.
func (c *card) multiplies(p product) (bool, error) {
	if c.blas == nil {
		return false, nil
	}
	known, err := c.plan(p)
	return err == nil && known.c != nil, err
}

// plan returns the library's algorithm for p. Its matrices are column-major: it computes the product's
// transpose, cᵀ[n,m] = b aᵀ.
func (c *card) plan(p product) (*plan, error) {
	s := C.blas_shape{
		rows: C.ulonglong(p.n), cols: C.ulonglong(p.m), inner: C.ulonglong(p.k), ldc: C.ulonglong(p.n),
		align_a: alignment(p.b.address), align_b: alignment(p.a.address), align_c: alignment(p.c),
	}
	if p.b.steps == 1 {
		s.transpose_a, s.lda = 1, C.ulonglong(p.b.rows)
	} else {
		s.lda = C.ulonglong(p.b.steps)
	}
	if p.a.steps == 1 {
		s.ldb = C.ulonglong(p.a.rows)
	} else {
		s.transpose_b, s.ldb = 1, C.ulonglong(p.a.steps)
	}
	if p.in == gpu.BFloat16 {
		s.in_bf16 = 1
	}
	if p.out == gpu.BFloat16 {
		s.out_bf16 = 1
	}
	if p.bias != 0 {
		s.bias = alignment(p.bias)
	}
	return c.planned(s, p)
}

// multiply runs p on the library.
func (c *card) multiply(p product) error {
	l := c.blas
	known, err := c.plan(p)
	if err != nil {
		return err
	}
	beta := C.float(0)
	if p.accumulate {
		beta = 1
	}
	r := C.blas_run(c.c(), l.handle, known.c, C.CUdeviceptr(p.c), C.CUdeviceptr(p.b.address), C.CUdeviceptr(p.a.address), C.CUdeviceptr(p.bias), beta, C.CUdeviceptr(l.workspace), workspaceBytes, c.s())
	if r != 0 {
		return c.blasFailed("a product of "+p.sides(), int(r))
	}
	return nil
}

// planned returns the plan of a shape, and forgets the one that was used least lately where there are too many.
func (c *card) planned(s C.blas_shape, p product) (*plan, error) {
	l := c.blas
	l.clock++
	if known := l.plans[s]; known != nil {
		known.used = l.clock
		return known, nil
	}
	made := &plan{used: l.clock}
	if r := C.blas_plan(c.c(), l.handle, &s, workspaceBytes, &made.c); r != 0 {
		return nil, c.blasFailed("plan a product of "+p.sides(), int(r))
	}
	if made.c == nil {
		slog.Warn("cuBLASLt has no algorithm for a product: it runs on a kernel of this program, at a part of the speed", "product", p.sides(), "library", l.version)
	}
	if len(l.plans) >= mostPlans {
		oldest := l.clock
		var which C.blas_shape
		for s, x := range l.plans {
			if x.used < oldest {
				oldest, which = x.used, s
			}
		}
		C.blas_forget(l.plans[which].c) // its descriptions are the host's: what is queued does not need them
		delete(l.plans, which)
	}
	l.plans[s] = made
	return made, nil
}

func (p product) sides() string { return fmt.Sprintf("%d × %d × %d", p.m, p.n, p.k) }
