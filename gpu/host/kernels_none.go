//go:build purego || !(amd64 || arm64)

package host

// fastSets returns no sets in assembly.
func fastSets() []kernelSet { return nil }
