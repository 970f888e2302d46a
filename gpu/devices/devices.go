// Package devices opens a compute device by name. It is the one place that knows all
// kinds; everything else computes through gpu.Device.
package devices

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// Card returns nil where the machine has an NVIDIA card that this program would try to open, else why not, and what to do.
func Card() error { return probe() }

// Open opens the device called name: "host" is this machine's processor, "cuda" or "cuda:N" an NVIDIA
// card (only in a program built with the tag cuda), "auto" a card when there is one, else the processor; where no number is given it is the first card that is free; a card whose driver fails
// is an error, for a training on the processor instead would not end. "cuda:N,fast" is a card whose gradients need not have the same
// bits from run to run; its class says so. "cuda:N,plain" is a card that is sent each launch by itself when it decodes, for looking at
// single kernels; its results are the same.
func Open(ctx context.Context, name string) (gpu.Device, error) {
	kind, index, _ := strings.Cut(name, ":")
	switch kind {
	case "auto", "":
		var none interface{ Absent() bool }
		err := Card()
		switch {
		case err == nil:
			return openCard(ctx, "")
		case errors.As(err, &none) && none.Absent():
			return host.Open(host.Options{})
		}
		return nil, fmt.Errorf("this machine has a driver for cards that fails (device: host does without): %w", err)
	case "host":
		return host.Open(host.Options{})
	case "cuda":
		index, list, named := strings.Cut(index, ",")
		fast, plain := false, false
		for mode := range strings.SplitSeq(list, ",") {
			switch {
			case mode == "fast":
				fast = true
			case mode == "plain":
				plain = true
			case named:
				return nil, fmt.Errorf("device %q: mode %q is not known; use fast, plain or none", name, mode)
			}
		}
		d, err := openCard(ctx, index)
		if err != nil {
			return nil, err
		}
		if f, ok := d.(interface{ SetFast(bool) error }); ok {
			if err := f.SetFast(fast); err != nil {
				return nil, err // by which the card may be lost, so that closing it may not end
			}
		}
		if g, ok := d.(interface{ SetGraphs(bool) }); ok {
			g.SetGraphs(!plain)
		}
		return d, nil
	}
	return nil, fmt.Errorf("device %q is not known; use auto, host or cuda", name)
}
