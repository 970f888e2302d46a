package cuda

import (
	"unsafe"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

// machine is what a Device runs on: memory, and kernels launched in order. Errors of launches may show at a later call.
type machine interface {
	info() gpu.Info
	alloc(bytes int) (address uint64, err error)
	free(address uint64) error
	// upload returns when src may be changed, download when dst is filled.
	upload(dst uint64, src []byte) error
	download(dst []byte, src uint64) error
	copy(dst, src uint64, bytes int) error
	zero(dst uint64, bytes int) error
	launch(unit kernels.Unit, grid [3]uint32, threads, shared int, args []byte) error
	// multiplies reports whether the vendor's library has a matrix product, which multiply then queues.
	multiplies(p product) (bool, error)
	multiply(p product) error
	// hopper reports whether kernels for sm_90a run, whose tiles tensorMap describes.
	hopper() bool
	tensorMap(t tensor) (tensorMap, error)
	// allocHost returns memory of the host that transfers reach at full speed, cleared.
	allocHost(bytes int) ([]byte, error)
	freeHost(memory []byte) error
	// transfer queues a copy between a device address and host memory beside the launches; await makes later ones wait for it.
	transfer(device uint64, memory []byte, out bool) (gpu.Event, error)
	await(gpu.Event) error
	// sync waits for launches and transfers.
	sync() error
	close() error
}

// memoryBytes returns the memory of x.
func memoryBytes[E any](x []E) []byte {
	var e E
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(e)))
}

// launch runs a kernel with args, a struct laid out as the kernel's Args.
func launch[A any](o *operation, kernel, defines string, grid [3]int, threads, shared int, args A) {
	if o.failed() || grid[0] == 0 || grid[1] == 0 || grid[2] == 0 {
		return
	}
	g := [3]uint32{uint32(grid[0]), uint32(grid[1]), uint32(grid[2])}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&args)), int(unsafe.Sizeof(args)))
	o.try(o.d.m.launch(kernels.Unit{Kernel: kernel, Defines: defines}, g, threads, shared, b))
}

// over is the grid of n parts.
func over(n int) [3]int { return [3]int{n, 1, 1} }

func ceil(a, b int) int { return (a + b - 1) / b }
