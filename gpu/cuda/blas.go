//go:build cuda

package cuda

// #include "card.h"
import "C"

import (
	"fmt"
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
	plans     map[C.blas_shape]unsafe.Pointer // nil where it has no algorithm
}

// openMatrixLibrary returns nil where the library is not found: the device then uses kernels of its own.
func openMatrixLibrary(c *card) (*matrixLibrary, error) {
	for _, file := range candidates("cublasLt", driverMajor(), folders()) {
		path := C.CString(file)
		var version C.size_t
		why := C.blas_open(path, &version)
		C.free(unsafe.Pointer(path))
		if why != nil {
			continue
		}
		l := &matrixLibrary{version: fmt.Sprint(version), plans: map[C.blas_shape]unsafe.Pointer{}}
		if r := C.blas_create(c.c(), &l.handle); r != 0 {
			return nil, &Error{Kind: Refused, Op: "start cuBLASLt " + file, Code: int(r)}
		}
		var err error
		l.workspace, err = c.alloc(workspaceBytes)
		return l, err
	}
	return nil, nil
}

// close frees the library's memory on the host; that on the card goes with the context.
func (l *matrixLibrary) close(c *card) {
	if l == nil {
		return
	}
	for _, plan := range l.plans {
		C.blas_forget(plan)
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
	plan, err := c.plan(p)
	return plan != nil, err
}

// plan returns the library's algorithm for p, nil where it has none. Its matrices are column-major: it computes the product's
// transpose, cᵀ[n,m] = b aᵀ.
func (c *card) plan(p product) (unsafe.Pointer, error) {
	l := c.blas
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
	plan, known := l.plans[s]
	if !known {
		if r := C.blas_plan(c.c(), l.handle, &s, workspaceBytes, &plan); r != 0 {
			return nil, &Error{Kind: Refused, Op: fmt.Sprintf("plan a product of %d × %d × %d", p.m, p.n, p.k), Text: fmt.Sprintf("cuBLASLt status %d", int(r))}
		}
		l.plans[s] = plan
	}
	return plan, nil
}

// multiply runs p on the library.
func (c *card) multiply(p product) error {
	l := c.blas
	plan, err := c.plan(p)
	if err != nil {
		return err
	}
	beta := C.float(0)
	if p.accumulate {
		beta = 1
	}
	r := C.blas_run(c.c(), l.handle, plan, C.CUdeviceptr(p.c), C.CUdeviceptr(p.b.address), C.CUdeviceptr(p.a.address), C.CUdeviceptr(p.bias), beta, C.CUdeviceptr(l.workspace), workspaceBytes, c.s())
	if r != 0 {
		return &Error{Kind: Refused, Op: fmt.Sprintf("a product of %d × %d × %d", p.m, p.n, p.k), Text: fmt.Sprintf("cuBLASLt status %d", int(r))}
	}
	return nil
}
