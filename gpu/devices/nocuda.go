//go:build !cuda

package devices

import (
	"context"

	"github.com/longalign/longalign-go/gpu"
)

// WithCards tells whether this program has the device of NVIDIA's cards in it.
const WithCards = false

func probe() error { return notBuilt{} }

func openCard(context.Context, string) (gpu.Device, error) { return nil, notBuilt{} }

// notBuilt says that this program has no CUDA in it. Another worker's may.
type notBuilt struct{}

func (notBuilt) Error() string {
	return "this program was built without CUDA; build it with -tags cuda (make cuda), or use device: host"
}

// Elsewhere reports true: a worker built with CUDA can do the work.
func (notBuilt) Elsewhere() bool { return true }

// Absent reports true: what cannot be seen is not there.
func (notBuilt) Absent() bool { return true }

// Sticky reports false.
func (notBuilt) Sticky() bool { return false }
