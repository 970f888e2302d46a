// Package host is the gpu.Device of the processor: Go, with assembly kernels chosen when it
// opens (AVX2 with FMA or AVX-512 on amd64, NEON on arm64) and a pure Go fallback (build tag
// purego, or Options.Kernels). It is the oracle of the other devices.
//
// Float32 is the fast type and Float64 the one for proofs; BFloat16 is not supported.
//
// How it is built. A kernels table holds the inner loops of one element type. An
// engine holds a table and the operations written over it, cut into parts: a part writes
// memory of its own and does not depend on the number of threads, so that results have
// the same bits with any. A pool of goroutines that live as long as the device works the parts off.
//
// Matrix products (gemm.go) run a tile of mr rows by nr columns over operands of which the right one is
// packed into strips of nr columns. Packed weights are kept until the weight changes, so a
// weight that both Linear and LinearGradInput have used takes three times its size.
// A product sums over k in order, whatever the row, so a token's result depends neither
// on its place nor on its neighbours.
//
// An operation that meets a wrong shape, type or index records a *gpu.OpError, which Sync returns, and
// computes nothing.
package host

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/longalign/longalign-go/gpu"
)

// Options configure the device.
type Options struct {
	// Threads that compute; 0 means one a processor. Results do not depend on it.
	Threads int
	// Kernels names the inner loops, one of KernelSets: "go" is the portable ones, "" what the environment variable
	// LONGALIGN_KERNELS names, else the best for this processor. Results depend on it: it is part of Info.Class.
	Kernels string
}

// Device computes on the processor.
type Device struct {
	info   gpu.Info
	pool   *pool
	f32    *engine[float32]
	f64    *engine[float64]
	packs  packCache
	ops    uint64 // operations begun
	err    error
	closed bool
	prof   profile
}

var (
	_ gpu.Device    = (*Device)(nil)
	_ gpu.Profiler  = (*Device)(nil)
	_ gpu.PeakMeter = (*Device)(nil)
)

// Open starts the device. Close it to end its goroutines.
func Open(opts Options) (*Device, error) {
	if opts.Threads < 0 {
		return nil, fmt.Errorf("host device: %d threads; use 0 for one a processor", opts.Threads)
	}
	if opts.Threads == 0 {
		opts.Threads = runtime.GOMAXPROCS(0)
	}
	k32, k64, err := chooseKernels(opts.Kernels)
	if err != nil {
		return nil, err
	}
	d := &Device{pool: newPool(opts.Threads)}
	d.f32 = newEngine(d, k32)
	d.f64 = newEngine(d, k64)
	d.info = gpu.Info{
		Kind:    "host",
		Name:    processorName(),
		Class:   "host/" + runtime.GOARCH + "/" + k32.name,
		Threads: opts.Threads,
		Memory:  UsableMemory(),
	}
	return d, nil
}

// Info describes the processor and the kernels in use.
func (d *Device) Info() gpu.Info { return d.info }

// Supports reports true for Float32 and Float64.
func (d *Device) Supports(t gpu.DType) bool { return t == gpu.Float32 || t == gpu.Float64 }

// Sync returns the first failure; operations are done when they return.
func (d *Device) Sync() error { return d.err }

// Close ends the device's goroutines. Buffers stay readable, operations fail.
func (d *Device) Close() error {
	if !d.closed {
		d.closed = true
		d.pool.close()
		d.packs.drop()
		if d.err == nil {
			d.err = &gpu.OpError{Device: "host", Op: "Close", Err: errors.New("the device is closed")}
		}
	}
	return nil
}

// start begins an operation on buffers of one type and returns their engine, or nil when it
// must not run. Nil buffers are passed over.
func (d *Device) start(op string, bufs ...gpu.Buffer) operations {
	d.ops++
	if d.err != nil {
		return nil
	}
	var t gpu.DType
	first := true
	for i, b := range bufs {
		if b == nil {
			continue
		}
		h, ok := b.(*Buffer)
		switch {
		case !ok:
			d.fail(op, fmt.Errorf("buffer %d is a %T of another device", i, b))
			return nil
		case h.freed():
			d.fail(op, fmt.Errorf("buffer %d was freed", i))
			return nil
		case h.home.host || h.dtype == gpu.UInt8:
			d.fail(op, fmt.Errorf("buffer %d is %v in memory that is not for computing (host memory: %v)", i, h.dtype, h.home.host))
			return nil
		case first:
			t, first = h.dtype, false
		case h.dtype != t:
			d.fail(op, fmt.Errorf("buffer %d is %v where the others are %v", i, h.dtype, t))
			return nil
		}
	}
	if d.prof.on {
		d.prof.begin(op)
	}
	if t == gpu.Float64 {
		return d.f64
	}
	return d.f32
}

// startMemory begins an operation that moves memory of any kind.
func (d *Device) startMemory(op string, bufs ...gpu.Buffer) bool {
	d.ops++
	if d.err != nil {
		return false
	}
	for i, b := range bufs {
		h, ok := b.(*Buffer)
		switch {
		case b == nil || ok && h == nil:
			d.fail(op, errNoBuffer)
		case !ok:
			d.fail(op, fmt.Errorf("buffer %d is a %T of another device", i, b))
		case h.freed():
			d.fail(op, fmt.Errorf("buffer %d was freed", i))
		default:
			continue
		}
		return false
	}
	if d.prof.on {
		d.prof.begin(op)
	}
	return true
}

// finish ends an operation that start began.
func (d *Device) finish(op string, err error) {
	if err != nil {
		d.fail(op, err)
	}
	if d.prof.on {
		d.prof.end()
	}
}

func (d *Device) fail(op string, err error) {
	if d.err == nil {
		d.err = &gpu.OpError{Device: "host", Op: op, Err: err}
	}
}

// profile counts by operation; the device runs one operation at a time.
type profile struct {
	on      bool
	current string
	began   time.Time
	counts  map[string]*gpu.OpStats
}

func (p *profile) begin(op string) {
	p.current, p.began = op, time.Now()
	if p.counts[op] == nil {
		p.counts[op] = &gpu.OpStats{Op: op}
	}
}

// work adds what the current operation has to do.
func (p *profile) work(flops, bytes float64) {
	if p.on {
		c := p.counts[p.current]
		c.FLOPs += flops
		c.Bytes += bytes
	}
}

func (p *profile) end() {
	c := p.counts[p.current]
	c.Calls++
	c.Seconds += time.Since(p.began).Seconds()
}
