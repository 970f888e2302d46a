//go:build unix

package host_test

import (
	"syscall"
	"time"
)

// cpuTime returns the processor time of this process: on a machine that others use too it tells
// more about a loop than the time on the wall.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
