//go:build cuda

package devices

import (
	"context"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda"
)

// WithCards tells whether this program has the device of NVIDIA's cards in it.
const WithCards = true

func probe() error { return cuda.Probe() }

func openCard(ctx context.Context, index string) (gpu.Device, error) {
	d, err := cuda.Open(ctx, index)
	if err != nil {
		return nil, err // not a nil *Device, which is no nil gpu.Device
	}
	return d, nil
}
