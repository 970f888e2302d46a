//go:build !unix

package tokens

import (
	"fmt"
	"os"
)

// Map reads a file whole where there is no memory map.
func Map(path string) (data []byte, unmap func() error, err error) {
	if data, err = os.ReadFile(path); err != nil {
		return nil, nil, fmt.Errorf("map token shard: %w", err)
	}
	return data, func() error { return nil }, nil
}
