//go:build unix

package main

import (
	"errors"
	"syscall"
)

// ownGroup keeps the terminal's Ctrl-C from the child: starter decides when it ends.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// alive tells whether a process exists.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
