//go:build cuda

package cuda

// #include "card.h"
import "C"

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/longalign/longalign-go/gpu"
)

// lane is one direction of transfers: a stream of its own beside that of the launches.
type lane struct {
	stream cu.Stream
	begun  cu.Event     // the launches that a transfer waits for
	ends   [64]cu.Event // of the last transfers, in turn
	next   int
}

// transferred is the end of a transfer. When its event was used again, by a later transfer of the same lane, waiting for
// that one is waiting for this one too.
type transferred struct {
	c     *card
	event cu.Event
}

// Wait blocks until the copy has ended.
func (t transferred) Wait() error { return t.c.on("wait for a transfer", t.event.Synchronize) }

func (c *card) lane(out bool) (*lane, error) {
	at := 0
	if out {
		at = 1
	}
	if c.lanes[at] != nil {
		return c.lanes[at], nil
	}
	l := &lane{}
	err := c.on("make a stream for transfers", func() (err error) {
		if l.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
			return err
		}
		if l.begun, err = cu.MakeEvent(cu.DisableTiming); err != nil {
			return err
		}
		for i := range l.ends {
			if l.ends[i], err = cu.MakeEvent(cu.DisableTiming); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.lanes[at] = l
	return l, nil
}

func (c *card) transfer(device uint64, memory []byte, out bool) (gpu.Event, error) {
	l, err := c.lane(out)
	if err != nil {
		return nil, err
	}
	end := l.ends[l.next%len(l.ends)]
	l.next++
	err = c.on("transfer", func() error {
		if err := l.begun.Record(c.stream); err != nil {
			return err
		}
		if err := l.stream.Wait(l.begun, 0); err != nil {
			return err
		}
		if n := int64(len(memory)); n > 0 {
			host := unsafe.Pointer(unsafe.SliceData(memory))
			var err error
			if out {
				err = cu.MemcpyDtoHAsync(host, cu.DevicePtr(device), n, l.stream)
			} else {
				err = cu.MemcpyHtoDAsync(cu.DevicePtr(device), host, n, l.stream)
			}
			if err != nil {
				return err
			}
		}
		return end.Record(l.stream)
	})
	return transferred{c, end}, err
}

func (c *card) await(e gpu.Event) error {
	t, ok := e.(transferred)
	if !ok || t.c != c {
		return fmt.Errorf("a %T is no transfer of this card", e)
	}
	return c.on("await a transfer", func() error { return c.stream.Wait(t.event, 0) })
}

// allocHost pins memory; the driver does not clear it.
func (c *card) allocHost(bytes int) ([]byte, error) {
	var p unsafe.Pointer
	if err := result("allocate pinned memory", int(C.card_pinned(c.c(), &p, C.size_t(bytes)))); err != nil {
		if e, ok := err.(*Error); ok && e.Kind == OutOfMemory {
			e.Kind, e.Asked = OutOfHostMemory, int64(bytes)
		}
		return nil, err
	}
	memory := unsafe.Slice((*byte)(p), bytes)
	clear(memory)
	c.pins[&memory[0]] = struct{}{}
	return memory, nil
}

func (c *card) freeHost(memory []byte) error {
	return c.on("free pinned memory", func() error {
		if err := c.synchronize(); err != nil {
			return err
		}
		delete(c.pins, &memory[0])
		return cu.MemFreeHost(unsafe.Pointer(&memory[0]))
	})
}

// synchronize waits for launches and transfers, on a thread that has the context.
func (c *card) synchronize() error {
	err := c.stream.Synchronize()
	for _, l := range c.lanes {
		if l != nil && err == nil {
			err = l.stream.Synchronize()
		}
	}
	return err
}

// closeLanes gives back what transfers took.
func (c *card) closeLanes() {
	for p := range c.pins {
		cu.MemFreeHost(unsafe.Pointer(p))
	}
	for _, l := range c.lanes {
		if l == nil {
			continue
		}
		cu.DestroyEvent(&l.begun)
		for i := range l.ends {
			cu.DestroyEvent(&l.ends[i])
		}
		l.stream.Destroy()
	}
}
