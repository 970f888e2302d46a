//go:build !linux

package testenv

import "syscall"

// Elsewhere the pipe on standard input alone ties the child to its parent.
func dieWithParent() *syscall.SysProcAttr { return nil }

func outliveParent() *syscall.SysProcAttr { return nil }
