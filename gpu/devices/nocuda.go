//go:build !cuda

package devices

import (
	"context"
	"errors"

	"github.com/longalign/longalign-go/gpu"
)

func cardPresent() bool { return false }

func openCard(context.Context, string) (gpu.Device, error) {
	return nil, errors.New("this program was built without CUDA; build it with -tags cuda, or use device: host")
}
