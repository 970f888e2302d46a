//go:build cuda

package cuda

// #include "card.h"
import "C"

import "runtime"

var _ repeatable = (*card)(nil)

// capture makes a graph of what run queues on the card's stream. Capturing belongs to a thread of the system.
func (c *card) capture(run func() error) (graph, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := result("begin to capture", int(C.card_capture(c.c(), c.s()))); err != nil {
		return nil, err
	}
	err := run()
	var g C.CUgraphExec
	if r := C.card_captured(c.c(), c.s(), &g); err == nil {
		err = result("make a graph", int(r))
	}
	if err != nil {
		if g != nil {
			C.card_forget(c.c(), g)
		}
		return nil, err
	}
	return g, nil
}

func (c *card) replay(g graph) error {
	return result("start a graph", int(C.card_replay(c.c(), g.(C.CUgraphExec), c.s())))
}

func (c *card) release(g graph) { C.card_forget(c.c(), g.(C.CUgraphExec)) }
