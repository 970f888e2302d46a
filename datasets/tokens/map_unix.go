//go:build unix

package tokens

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Map gives the contents of a file by memory map and a function that ends it. The slice must not
// be written to, nor used after.
func Map(path string) (data []byte, unmap func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("map token shard: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("map token shard: %w", err)
	}
	if info.Size() == 0 {
		return nil, func() error { return nil }, nil
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map token shard %s: %w", path, err)
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
