//go:build unix

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// locks are the cards that this process holds: one process a card, for two trainings on it would take each other's memory.
var locks = struct {
	sync.Mutex
	held map[string]*lock
}{held: map[string]*lock{}}

type lock struct {
	file  *os.File
	users int
}

// takeLock holds the card with that UUID for this process until release is called. A card that another process holds is an
// *Error of kind Busy. The lock is the kernel's: it ends with the process, however that ends.
func takeLock(dir, uuid string) (release func(), err error) {
	locks.Lock()
	defer locks.Unlock()
	l := locks.held[uuid]
	if l == nil {
		path := filepath.Join(dir, "longalign-"+uuid+".lock")
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, fmt.Errorf("lock of the card: %w", err)
		}
		_ = f.Chmod(0o666) // others' processes wait for it too; only its maker can
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			owner, _ := os.ReadFile(path)
			f.Close()
			return nil, &Error{Kind: Busy, Op: "open", Text: fmt.Sprintf("process %s holds %s (%s)", strings.TrimSpace(string(owner)), uuid, path)}
		}
		if err := f.Truncate(0); err == nil {
			fmt.Fprintln(f, os.Getpid())
		}
		l = &lock{file: f}
		locks.held[uuid] = l
	}
	l.users++
	return sync.OnceFunc(func() {
		locks.Lock()
		defer locks.Unlock()
		if l.users--; l.users == 0 {
			l.file.Close()
			delete(locks.held, uuid)
		}
	}), nil
}
