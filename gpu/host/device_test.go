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
	cases := map[string]host.Options{"one thread": {Threads: 1}}
	for i, name := range host.KernelSets() {
		cases[name] = host.Options{Kernels: name, Threads: 2 + i}
	}
	for name, opts := range cases {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T) gpu.Device { return open(t, opts) })
		})
	}
}
