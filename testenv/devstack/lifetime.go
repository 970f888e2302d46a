package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/term"
)

var (
	errStdinClosed = errors.New("standard input closed")
	errUnused      = errors.New("unused for the --linger time")
)

// endWithStdin ends the process when its standard input closes: the parent holds the other end of a pipe and never
// writes, so that its death, however it comes, closes it. A terminal is left alone: reading it from the background
// would stop the process, and a terminal that goes away sends a signal.
func endWithStdin(stdin *os.File, end context.CancelCauseFunc) {
	if term.IsTerminal(int(stdin.Fd())) {
		return
	}
	// An error is as good as the end: nobody is there any more.
	_, _ = io.Copy(io.Discard, stdin)
	end(errStdinClosed)
}

// endWhenUnused ends the process when no client has held a shared lock on the file for the linger time. It ends with
// the lock held, so that a client that comes meanwhile waits until this process is gone and then starts its own,
// instead of using a server that stops under it. The file's time keeps short visits between two looks from being
// overlooked: clients set it.
func endWhenUnused(ctx context.Context, name string, linger time.Duration, end context.CancelCauseFunc) {
	lock := flock.New(name, flock.SetPermissions(0o600))
	last := time.Now()
	tick := time.NewTicker(min(linger/10+time.Millisecond, 5*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		free, err := lock.TryLock()
		if err != nil || !free {
			last = time.Now()
			continue
		}
		if fi, err := os.Stat(name); err == nil && fi.ModTime().After(last) {
			last = fi.ModTime()
		}
		if time.Since(last) >= linger {
			end(errUnused) // the lock goes with the process
			return
		}
		lock.Unlock()
	}
}
