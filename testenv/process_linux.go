package testenv

import "syscall"

// dieWithParent makes the kernel end the child when its parent is gone, and keeps a Ctrl-C at the terminal from it: the
// parent stops it when its own work is put away.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// outliveParent detaches the child from its parent's terminal and life.
func outliveParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}
