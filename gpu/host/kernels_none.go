//go:build purego || !(amd64 || arm64)

package host

// fastKernels leaves the portable kernels.
func fastKernels(*kernels[float32], *kernels[float64]) {}
