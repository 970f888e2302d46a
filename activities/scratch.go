package activities

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// OpenScratch makes a directory of this process's own below root, and removes those of processes that were killed before they
// could. release removes it.
func OpenScratch(root string) (dir string, release func(), err error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", nil, fmt.Errorf("scratch directory: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(root, "process-*"))
	if err != nil {
		return "", nil, err
	}
	for _, old := range left {
		// A living process holds the lock of its directory; the kernel lets go of a dead one's.
		lock := flock.New(filepath.Join(old, "lock"))
		if held, err := lock.TryLock(); err == nil && held {
			_ = os.RemoveAll(old) // what cannot be removed now is tried at the next start
			_ = lock.Close()
		}
	}
	if dir, err = os.MkdirTemp(root, "process-"); err != nil {
		return "", nil, fmt.Errorf("scratch directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if _, err := lock.TryLock(); err != nil {
		return "", nil, fmt.Errorf("scratch directory: %w", err)
	}
	return dir, func() {
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}, nil
}
