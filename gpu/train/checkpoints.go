package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// Checkpoints is a directory of the states of one run, step-00000120 and so on. Each is complete or absent, and an old one is
// deleted only after a newer one was written and read back. Lock keeps other processes out.
type Checkpoints struct {
	Dir string
	// Keep is how many of the newest stay; at least 1.
	Keep int
}

const stepPrefix = "step-"

// steps returns the steps of all checkpoints, oldest first.
func (c Checkpoints) steps() ([]int, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var steps []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), stepPrefix)); err == nil && strings.HasPrefix(e.Name(), stepPrefix) {
			steps = append(steps, n)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

func (c Checkpoints) path(step int) string {
	return filepath.Join(c.Dir, fmt.Sprintf("%s%08d", stepPrefix, step))
}

// LockedError says that another process writes to a directory of checkpoints.
type LockedError struct{ Dir string }

func (e *LockedError) Error() string {
	return fmt.Sprintf("another training writes to %s; wait for it, or write elsewhere", e.Dir)
}

// Lock makes the directory and keeps it for this process until unlock is called or the process ends. While another
// has it, that is a *LockedError.
func (c Checkpoints) Lock() (unlock func(), err error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(c.Dir, ".lock"), flock.SetPermissions(0o644))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", c.Dir, err)
	}
	if !held {
		return nil, &LockedError{c.Dir}
	}
	return func() { _ = lock.Close() }, nil
}

// Save writes a state, verifies it and deletes those before it that are older than Keep. Where the directory holds a
// state of another run after as many steps, nothing is written: the error is a *ResumeError.
func (c Checkpoints) Save(s *State) error {
	dir := c.path(s.Step)
	if _, err := os.Stat(dir); err == nil {
		if r, err := verifyState(dir, s.Step); err == nil {
			// A resumed run that took no step, or one that was damaged further on.
			return s.sameRun(r)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := s.WriteTo(dir); err != nil {
		return err
	}
	if _, err := verifyState(dir, s.Step); err != nil {
		return fmt.Errorf("a checkpoint did not read back as written: %w", err)
	}
	steps, err := c.steps()
	if err != nil {
		return err
	}
	// Later ones than this are not of its making.
	steps = slices.DeleteFunc(steps, func(n int) bool { return n > s.Step })
	for _, old := range steps[:max(0, len(steps)-max(1, c.Keep))] {
		if err := os.RemoveAll(c.path(old)); err != nil {
			return err
		}
	}
	return c.sweep()
}

// sweep removes what a killed process left half-written.
func (c Checkpoints) sweep() error {
	left, err := filepath.Glob(filepath.Join(c.Dir, ".partial-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Standing tells what a directory of checkpoints holds.
type Standing int

// The standings of a run.
const (
	NotBegun   Standing = iota // no checkpoint
	Unfinished                 // checkpoints, whole or not, from which steps are to be taken
	Finished                   // the newest is after the last step
)

// Standing reads the newest record; tensors are not verified.
func (c Checkpoints) Standing() (Standing, error) {
	steps, err := c.steps()
	if err != nil || len(steps) == 0 {
		return NotBegun, err
	}
	r, err := readRecord(c.path(steps[len(steps)-1]))
	if err != nil || r.Step < r.Options.Steps {
		return Unfinished, nil // what cannot be read is not known to be finished
	}
	return Finished, nil
}

// Clear deletes all checkpoints, for a new run that replaces a finished one.
func (c Checkpoints) Clear() error {
	steps, err := c.steps()
	for _, n := range steps {
		err = errors.Join(err, os.RemoveAll(c.path(n)))
	}
	return err
}

// Latest returns the newest state that is whole, nil if there never was one. Damaged ones are passed over
// and reported to damaged, if it is not nil; an error says that none is whole.
func (c Checkpoints) Latest(damaged func(error)) (*State, error) {
	steps, err := c.steps()
	if err != nil {
		return nil, err
	}
	for _, step := range slices.Backward(steps) {
		s, err := ReadState(c.path(step))
		if err == nil {
			return s, nil
		}
		if damaged != nil {
			damaged(err)
		}
	}
	if len(steps) > 0 {
		return nil, fmt.Errorf("none of the %d checkpoints in %s is whole; bring one back, or start a new run elsewhere", len(steps), c.Dir)
	}
	return nil, nil
}
