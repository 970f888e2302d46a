//go:build !unix

package safetensors

import "os"

// mapFile reads the file where memory maps are not portable.
func mapFile(path string) (data []byte, unmap func() error, err error) {
	data, err = os.ReadFile(path)
	return data, func() error { return nil }, err
}
