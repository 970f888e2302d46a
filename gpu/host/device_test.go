package host_test

import (
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devicetest"
	"github.com/longalign/longalign-go/gpu/host"
)

func open(t testing.TB, opts host.Options) *host.Device {
	t.Helper()
	d, err := host.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDevice(t *testing.T) {
	for name, opts := range map[string]host.Options{
		"best kernels":              {},
		"best kernels, one thread":  {Threads: 1},
		"portable kernels, threads": {Kernels: "go", Threads: 3},
	} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T) gpu.Device { return open(t, opts) })
		})
	}
}
