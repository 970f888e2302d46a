package host

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// AllocHost returns n zeros. They lie in the same memory as any buffer here, but operations refuse them as a card would.
func (d *Device) AllocHost(n int, t gpu.DType) (gpu.HostBuffer, error) {
	b, err := d.alloc(n, t)
	if err != nil {
		return nil, err
	}
	b.home.host = true
	return b, nil
}

// done is the event of a transfer that has happened.
type done struct{ err error }

// Wait returns the transfer's failure.
func (e done) Wait() error { return e.err }

// Transfer copies at once.
func (d *Device) Transfer(dst, src gpu.Buffer) gpu.Event {
	if !d.startMemory("Transfer", dst, src) {
		return done{d.err}
	}
	to, from := dst.(*Buffer), src.(*Buffer)
	var err error
	switch {
	case to.dtype != from.dtype || to.Len() != from.Len():
		err = fmt.Errorf("%d elements of %v cannot go into %d of %v", from.Len(), from.dtype, to.Len(), to.dtype)
	case to.home.host == from.home.host:
		err = fmt.Errorf("a transfer is between the device and host memory; both buffers are on one side")
	default:
		copy(to.Bytes(), from.Bytes())
		d.wrote(to)
	}
	d.finish("Transfer", err)
	return done{d.err}
}

// Await does nothing: transfers have ended when they return.
func (d *Device) Await(gpu.Event) {}
