package artifact

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Kinds of failure. Errors of this package wrap one of them where one fits; test with errors.Is.
var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("not found in the store")
	// ErrExists says that a put which must create found the key taken.
	ErrExists = errors.New("already in the store")
	// ErrChanged says that a put which must replace a known version found another one.
	ErrChanged = errors.New("changed in the store since it was read")
	// ErrFull says that the disk or the quota behind the store, or behind its spool, is used up.
	ErrFull = errors.New("no space left")
	// ErrFenced says that a newer owner holds the pointer. The error is a *FencedError.
	ErrFenced = errors.New("fenced by a newer owner")
	// ErrNewer says that an object was written by a newer version of this program. The error is a *NewerError.
	ErrNewer = errors.New("written by a newer version")
	// ErrKey says that a key, name or digest is not one the store accepts.
	ErrKey = errors.New("not a valid name in the store")
	// ErrUnavailable says that the store could not be reached or answered that it cannot serve now; trying again later may help.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrDenied says that the store refused the credentials or what they may do.
	ErrDenied = errors.New("access to the store denied")
)

// CorruptError says that an object's bytes are not what its name or its own hash promises.
type CorruptError struct {
	Store  string // the store's URI
	Object string // the object's key
	Want   string // what was promised: a digest or a size
	Got    string // what was found
}

// Error names the object and says how to mend it.
func (e *CorruptError) Error() string {
	advice := "`starter verify ID --repair` recomputes what it can as a new generation"
	if strings.Contains("/"+e.Object, "/runs/") {
		advice = "start the same run again: it reuses the results and writes a record of its own; then delete this object"
	}
	return fmt.Sprintf("%s in %s is corrupt: want %s, got %s; %s", e.Object, e.Store, e.Want, e.Got, advice)
}

// FencedError refuses a write through a lease that a newer one has replaced.
type FencedError struct {
	Pointer string // the pointer's name
	Epoch   int64  // the epoch of the refused lease
	Holder  string // who holds the newer epoch
	Newer   int64  // the newer epoch
}

// Error says who holds the pointer now.
func (e *FencedError) Error() string {
	return fmt.Sprintf("pointer %s: epoch %d (%s) has replaced epoch %d: this writer must stop", e.Pointer, e.Newer, e.Holder, e.Epoch)
}

// Unwrap makes errors.Is(err, ErrFenced) true.
func (e *FencedError) Unwrap() error { return ErrFenced }

// NewerError refuses an object whose format this program does not know.
type NewerError struct {
	Object  string // the object's key
	Version int    // the format it has
	Known   int    // the newest format this program reads
}

// Error says what to do.
func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program reads up to %d: use the version that wrote it, or a later one",
		e.Object, e.Version, e.Known)
}

// Unwrap makes errors.Is(err, ErrNewer) true.
func (e *NewerError) Unwrap() error { return ErrNewer }

// Full translates a write error: where the disk, the quota or the process's file size limit is used up, it says which place is full and keeps ErrFull in the chain.
func Full(err error, place string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w on %s: free some (`starter gc` shows what the store can spare) or use another place; nothing was half-written: %w",
			ErrFull, place, err)
	}
	return err
}
