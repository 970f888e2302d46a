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
// card (only in a program built with the tag cuda), "auto" the card when there is one, else the processor.
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
		return openCard(ctx, index)
	}
	return nil, fmt.Errorf("device %q is not known; use auto, host or cuda", name)
}
