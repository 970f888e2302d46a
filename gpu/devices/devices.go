// Package devices opens a compute device by name. It is the one place that knows all
// kinds; everything else computes through gpu.Device.
package devices

import (
	"context"
	"fmt"
	"strings"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// Open opens the device called name: "host" is this machine's processor, "cuda" or "cuda:N" an NVIDIA
// card (only in a program built with the tag cuda), "auto" the card when there is one, else the processor. "cuda:N,fast" is a card
// whose gradients need not have the same bits from run to run; its class says so.
func Open(ctx context.Context, name string) (gpu.Device, error) {
	kind, index, _ := strings.Cut(name, ":")
	switch kind {
	case "auto", "":
		if cardPresent() {
			return openCard(ctx, "")
		}
		return host.Open(host.Options{})
	case "host":
		return host.Open(host.Options{})
	case "cuda":
		index, mode, named := strings.Cut(index, ",")
		if named && mode != "fast" {
			return nil, fmt.Errorf("device %q: mode %q is not known; use fast, or none", name, mode)
		}
		d, err := openCard(ctx, index)
		if err != nil {
			return nil, err
		}
		if f, ok := d.(interface{ SetFast(bool) }); ok {
			f.SetFast(named)
		}
		return d, nil
	}
	return nil, fmt.Errorf("device %q is not known; use auto, host or cuda", name)
}
