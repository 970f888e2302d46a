//go:build cuda

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// openCache returns the cache in the user's folder for such, or where there is none (a service without HOME) in one of this user's own
// beside temporary files. Machine code is loaded from it, so that a folder of someone else is not used: then nothing is kept.
func openCache() cache {
	if dir, err := os.UserCacheDir(); err == nil {
		return cache{filepath.Join(dir, "longalign", "cuda")}
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("longalign-cuda-%d", os.Getuid()))
	_ = os.Mkdir(dir, 0o700)
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		return cache{}
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Getuid() {
		return cache{}
	}
	return cache{dir}
}
