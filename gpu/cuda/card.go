//go:build cuda

package cuda

// #include "card.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda/kernels"
	"github.com/longalign/longalign-go/gpu/host"
)

// staging is the pinned memory through which large transfers go, at the bus's speed.
const staging = 32 << 20

// Uploads of up to smallUpload bytes do not wait: they go through a ring of ringBytes pinned bytes behind the staging memory.
const (
	smallUpload = 64 << 10
	ringBytes   = 4 << 20
)

// scratchBytes is what operations take beside buffers, most of it the logits of a chunk and their gradient.
const scratchBytes = 512 << 20

// card is the machine of a real card.
type card struct {
	description gpu.Info
	device      cu.Device
	context     cu.CUContext
	stream      cu.Stream
	pinned      unsafe.Pointer // staging, then the ring
	ring        int            // where its next upload begins
	compiler    *compiler
	arch        string
	machineCode bool
	cache       cache
	functions   map[kernels.Unit]*function
	modules     []cu.Module
	allocated   map[uint64]struct{}
	blas        *matrixLibrary
	lanes       [2]*lane // of transfers: in, out
	unlock      func()
	pins        map[*byte]struct{}
}

type function struct {
	f      cu.Function
	shared int // that it may have
}

// driverState returns an error where there is no driver that works.
func driverState() error {
	var loaded C.int
	r := C.longalignDriverStatus(&loaded)
	if loaded == 0 {
		return &Error{Kind: NoDriver, Op: "load the driver", Text: "libcuda.so.1 was not found"}
	}
	return result("start the driver", int(r))
}

func init() {
	codeName = func(code int) string {
		name := C.longalignErrorName(C.CUresult(code))
		if name == nil {
			return ""
		}
		return C.GoString(name)
	}
}

// driverMajor is the major version of CUDA that the driver serves. Without a driver it is that of the newest libraries known.
func driverMajor() int {
	if driverState() != nil {
		return 13
	}
	return cu.Version() / 1000
}

// Probe returns nil where the machine has a card that Open would try, else why not: an *Error, Absent where there is no card, not
// so where there is a driver that fails.
func Probe() error {
	if err := driverState(); err != nil {
		return err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return failure("count the devices", err)
	}
	if n == 0 {
		return &Error{Kind: NoDevice, Op: "count the devices", Text: "the driver sees none"}
	}
	return nil
}

// Open opens card index; "" is the first that no other process has and that this program can use. The error is an *Error.
func Open(_ context.Context, index string) (*Device, error) {
	if err := driverState(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, failure("count the devices", err)
	}
	if index == "" && n > 0 {
		return openAny(n)
	}
	at := 0
	if index != "" {
		if at, err = strconv.Atoi(index); err != nil {
			return nil, &Error{Kind: NoDevice, Op: "open", Text: fmt.Sprintf("device number %q", index)}
		}
	}
	if at < 0 || at >= n {
		return nil, &Error{Kind: NoDevice, Op: "open", Text: fmt.Sprintf("device %d of %d", at, n)}
	}
	return openDevice(at)
}

// openAny opens the first of n cards that is neither another process's nor too old, so that a machine serves as many workers as it has
// cards. Where there is none, the error is the first card's.
func openAny(n int) (*Device, error) {
	var first error
	for at := range n {
		d, err := openDevice(at)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Busy && e.Kind != Architecture {
			return d, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func openDevice(at int) (*Device, error) {
	c, err := openCard(at)
	if err != nil {
		return nil, err
	}
	d := newDevice(c)
	if err := d.useHopper(); err != nil {
		var e *Error
		if !errors.As(err, &e) || e.Kind != TrialFailed { // after which closing may never end
			d.Close()
		}
		return nil, err
	}
	return d, nil
}

func openCard(at int) (_ *card, err error) {
	c := &card{functions: map[kernels.Unit]*function{}, allocated: map[uint64]struct{}{}, pins: map[*byte]struct{}{}, cache: openCache()}
	if c.device, err = cu.GetDevice(at); err != nil {
		return nil, failure("open", err)
	}
	major, minor, err := c.device.ComputeCapability()
	if err != nil {
		return nil, failure("open", err)
	}
	if major < 8 {
		return nil, &Error{Kind: Architecture, Op: "open", Text: fmt.Sprintf("compute capability %d.%d", major, minor)}
	}
	if c.compiler, err = loadCompiler(); err != nil {
		return nil, err
	}
	if c.arch, c.machineCode, err = target(10*major+minor, c.compiler.archs); err != nil {
		return nil, err
	}
	if major == 9 && minor == 0 && c.compiler.major < 12 {
		slog.Warn("attention runs on the kernels of every card, at a part of the speed, for Hopper's need NVRTC 12 or later; install it, or name its folder in LONGALIGN_CUDA_LIBRARIES", "found", c.compiler.version)
	}
	id, err := c.device.UUID()
	if err != nil {
		return nil, failure("open", err)
	}
	if c.unlock, err = takeLock(os.TempDir(), "GPU-"+id.String()); err != nil {
		return nil, err
	}
	if c.context, err = c.device.RetainPrimaryCtx(); err != nil {
		c.unlock()
		err = failure("make a context", err)
		if e, ok := err.(*Error); ok && e.Kind == OutOfMemory { // some hundred MiB, which nobody can offload
			e.Kind, e.Text = Busy, "no memory is left for a context: another process has filled the card"
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err = c.on("make a stream", func() (err error) {
		c.stream, err = cu.MakeStream(cu.NonBlocking)
		return err
	}); err != nil {
		return nil, err
	}
	if err = result("allocate pinned memory", int(C.card_pinned(c.c(), &c.pinned, staging+ringBytes))); err != nil {
		return nil, err
	}
	if c.blas, err = openMatrixLibrary(c); err != nil {
		return nil, err
	}
	name, err := c.device.Name()
	if err != nil {
		return nil, failure("open", err)
	}
	var usable int64
	if usable, _, err = c.memory(); err != nil {
		return nil, err
	}
	processors, err := c.device.Attribute(cu.MultiprocessorCount)
	if err != nil {
		return nil, failure("open", err)
	}
	products := "own"
	if c.blas != nil {
		products = "cublaslt-" + c.blas.version
	}
	v := cu.Version()
	c.description = gpu.Info{
		Kind: "cuda", Name: name, Class: fmt.Sprintf("cuda/sm_%d%d-%d/%s/nvrtc-%s", major, minor, processors, products, c.compiler.version),
		Driver: fmt.Sprintf("CUDA %d.%d", v/1000, v%1000/10), UUID: "GPU-" + id.String(), Memory: max(usable-scratchBytes, 0), HostMemory: host.UsableMemory(),
	}
	return c, nil
}

// memory returns the bytes that are free on the card, and all of its bytes.
func (c *card) memory() (free, total int64, err error) {
	err = c.on("measure memory", func() (err error) {
		free, total, err = cu.MemInfo()
		return err
	})
	return free, total, err
}

func (c *card) info() gpu.Info { return c.description }

// The binding's types hold one pointer each and do not export it.
func (c *card) c() C.CUcontext { return *(*C.CUcontext)(unsafe.Pointer(&c.context)) }
func (c *card) s() C.CUstream  { return *(*C.CUstream)(unsafe.Pointer(&c.stream)) }
func (f *function) c() C.CUfunction {
	return *(*C.CUfunction)(unsafe.Pointer(&f.f))
}

// on runs a call of the binding with the card's context on this thread.
func (c *card) on(op string, call func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cu.SetCurrentContext(c.context); err != nil {
		return failure(op, err)
	}
	return failure(op, call())
}

func (c *card) alloc(bytes int) (address uint64, err error) {
	err = c.on("allocate", func() error {
		p, err := cu.MemAlloc(int64(bytes))
		address = uint64(p)
		return err
	})
	if err == nil {
		c.allocated[address] = struct{}{}
	}
	if e, ok := err.(*Error); ok && e.Kind == OutOfMemory {
		e.Asked = int64(bytes)
		e.Free, e.Total, _ = c.memory()
	}
	return address, err
}

func (c *card) free(address uint64) error {
	return c.on("free", func() error {
		if err := c.synchronize(); err != nil {
			return err
		}
		delete(c.allocated, address)
		return cu.MemFree(cu.DevicePtr(address))
	})
}

func (c *card) upload(dst uint64, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	return c.on("upload", func() error {
		if len(src) <= smallUpload {
			if c.ring+len(src) > ringBytes { // once around: what was copied from its start has to have left
				if err := c.stream.Synchronize(); err != nil {
					return err
				}
				c.ring = 0
			}
			at := unsafe.Add(c.pinned, staging+c.ring)
			copy(unsafe.Slice((*byte)(at), len(src)), src)
			c.ring += (len(src) + 15) / 16 * 16
			return cu.MemcpyHtoDAsync(cu.DevicePtr(dst), at, int64(len(src)), c.stream)
		}
		for from := 0; from < len(src); from += staging {
			n := copy(unsafe.Slice((*byte)(c.pinned), staging), src[from:])
			if err := cu.MemcpyHtoDAsync(cu.DevicePtr(dst+uint64(from)), c.pinned, int64(n), c.stream); err != nil {
				return err
			}
			if err := c.stream.Synchronize(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *card) download(dst []byte, src uint64) error {
	return c.on("download", func() error {
		for from := 0; from < len(dst); from += staging {
			n := min(staging, len(dst)-from)
			if err := cu.MemcpyDtoHAsync(c.pinned, cu.DevicePtr(src+uint64(from)), int64(n), c.stream); err != nil {
				return err
			}
			if err := c.stream.Synchronize(); err != nil {
				return err
			}
			copy(dst[from:], unsafe.Slice((*byte)(c.pinned), n))
		}
		return nil
	})
}

func (c *card) copy(dst, src uint64, bytes int) error {
	return c.on("copy", func() error {
		return cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), int64(bytes), c.stream)
	})
}

func (c *card) zero(dst uint64, bytes int) error {
	return c.on("zero", func() error { return cu.MemsetD8Async(cu.DevicePtr(dst), 0, int64(bytes), c.stream) })
}

func (c *card) trials() trials {
	return trials{c.cache, fmt.Sprintf("%s %s %s", c.description.UUID, c.description.Driver, c.description.Class)}
}

// hopper reports whether the card has compute capability 9.0 and the compiler knows its own instructions.
func (c *card) hopper() bool { return c.arch == "sm_90" && c.compiler.major >= 12 }

func (c *card) tensorMap(t tensor) (m tensorMap, err error) {
	r := C.card_tensor_map(c.c(), unsafe.Pointer(&m), C.CUdeviceptr(t.address), C.int(t.width), C.int(t.heads), C.int(t.tokens), C.int(t.rows))
	return m, result("describe a tensor", int(r))
}

func (c *card) sync() error { return c.on("wait", c.synchronize) }

// function returns a compiled and loaded kernel that may have shared bytes of shared memory.
func (c *card) function(u kernels.Unit, shared int) (*function, error) {
	f := c.functions[u]
	if f == nil {
		source, err := sourceOf(u)
		if err != nil {
			return nil, err
		}
		arch := c.arch
		if u.Hopper() {
			arch += "a"
		}
		image, err := c.cache.get(func() ([]byte, error) {
			b, _, err := c.compiler.compile(u, arch, c.machineCode)
			return b, err
		}, source, arch, c.compiler.version)
		if err != nil {
			return nil, err
		}
		f = &function{shared: 48 << 10}
		if err := c.on("load "+u.String(), func() error {
			m, err := cu.LoadData(string(image))
			if err != nil {
				return err
			}
			c.modules = append(c.modules, m)
			f.f, err = m.Function(u.Kernel)
			return err
		}); err != nil {
			return nil, err
		}
		c.functions[u] = f
	}
	if shared > f.shared {
		if err := result("give "+u.String()+" its shared memory", int(C.card_shared(c.c(), f.c(), C.int(shared)))); err != nil {
			return nil, err
		}
		f.shared = shared
	}
	return f, nil
}

func (c *card) launch(u kernels.Unit, grid [3]uint32, threads, shared int, args []byte) error {
	f, err := c.function(u, shared)
	if err != nil {
		return err
	}
	return result("launch "+u.String(), int(C.card_launch(c.c(), f.c(), C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]), C.uint(threads), C.uint(shared), c.s(), unsafe.Pointer(&args[0]), C.size_t(len(args)))))
}

func (c *card) close() error {
	err := c.on("close", func() error {
		if c.s() != nil {
			c.synchronize()
		}
		c.closeLanes()
		c.blas.close(c)
		for _, m := range c.modules {
			m.Unload()
		}
		for address := range c.allocated {
			cu.MemFree(cu.DevicePtr(address))
		}
		if c.pinned != nil {
			cu.MemFreeHost(c.pinned)
		}
		if c.s() != nil {
			c.stream.Destroy()
		}
		return nil
	})
	if e := c.device.ReleasePrimaryCtx(); err == nil {
		err = failure("close", e)
	}
	c.unlock()
	return err
}
