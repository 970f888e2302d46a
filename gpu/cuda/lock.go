//go:build unix

package cuda

import (
	"errors"
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

// openLock opens the file at path, or makes it for everyone. Another user's file in a folder like /tmp must not be opened with the
// wish to create it: Linux refuses that even where reading and writing are allowed (fs.protected_regular).
func openLock(path string) (*os.File, error) {
	for range 3 { // two that make it at once, or one that removes it between
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrPermission) {
			f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0) // enough to lock it
		}
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			_ = f.Chmod(0o666) // whatever the mask of this process
		}
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("%s comes and goes", path)
}

// takeLock holds the card with that UUID for this process until release is called. A card that another process holds is an
// *Error of kind Busy, a file that cannot be locked one of kind NoLock. Containers that share a card but not dir do not see each
// other's lock. The lock is the kernel's: it ends with the process, however that ends.
func takeLock(dir, uuid string) (release func(), err error) {
	locks.Lock()
	defer locks.Unlock()
	l := locks.held[uuid]
	if l == nil {
		path := filepath.Join(dir, "longalign-"+uuid+".lock")
		f, err := openLock(path)
		if err != nil {
			return nil, &Error{Kind: NoLock, Op: "open", Text: err.Error()}
		}
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
