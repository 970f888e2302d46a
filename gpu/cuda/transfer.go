package cuda

import (
	"fmt"
	"unsafe"

	"github.com/longalign/longalign-go/gpu"
)

// AllocHost returns n zeros in pinned memory.
func (d *Device) AllocHost(n int, t gpu.DType) (gpu.HostBuffer, error) {
	if err := d.allocatable(n, t); err != nil {
		return nil, err
	}
	memory, err := d.m.allocHost(max(n*t.Size(), 1))
	if err != nil {
		return nil, fmt.Errorf("cuda device: %w", err)
	}
	address := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
	return &Buffer{address, n, t, &allocation{address: address, bytes: len(memory), memory: memory}}, nil
}

// failedTransfer is the event of a transfer that was not begun.
type failedTransfer struct{ err error }

// Wait returns why.
func (e failedTransfer) Wait() error { return e.err }

// Transfer copies between the card and pinned memory by the card's copy engines.
func (d *Device) Transfer(dst, src gpu.Buffer) gpu.Event {
	o := d.begin("Transfer")
	defer o.end()
	from := o.place("src", src, -1)
	to := o.place("dst", dst, from.n)
	switch {
	case o.failed():
	case to.dtype != from.dtype:
		o.refuse("%v cannot go into %v", from.dtype, to.dtype)
	case (to.home.memory == nil) == (from.home.memory == nil):
		o.refuse("a transfer is between the card and host memory; both buffers are on one side")
	}
	o.work(0, float64(from.bytes()))
	if o.failed() {
		return failedTransfer{d.err}
	}
	var e gpu.Event
	var err error
	if out := to.home.memory != nil; out {
		e, err = d.m.transfer(from.address, to.Bytes(), true)
	} else {
		e, err = d.m.transfer(to.address, from.Bytes(), false)
	}
	if o.try(err); err != nil {
		return failedTransfer{d.err}
	}
	return e
}

// Await lets later operations wait for a transfer.
func (d *Device) Await(e gpu.Event) {
	if _, failed := e.(failedTransfer); e == nil || failed {
		return
	}
	o := d.begin("Await")
	defer o.end()
	if !o.failed() {
		o.try(d.m.await(e))
	}
}
