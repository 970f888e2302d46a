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
)

// Checkpoints is a directory of states, step-00000120 and so on. Each is complete or absent, and an old one is
// deleted only after a newer one was written and read back.
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

// Save writes a state, verifies it and deletes what is older than Keep.
func (c Checkpoints) Save(s *State) error {
	dir := c.path(s.Step)
	if _, err := os.Stat(dir); err == nil {
		if verifyState(dir, s.Step) == nil {
			return nil // a resumed run that took no step
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := s.WriteTo(dir); err != nil {
		return err
	}
	if err := verifyState(dir, s.Step); err != nil {
		return fmt.Errorf("a checkpoint did not read back as written: %w", err)
	}
	steps, err := c.steps()
	if err != nil {
		return err
	}
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

// Latest returns the newest state that is whole, nil if there is none. Damaged ones are passed over
// and reported to damaged, if it is not nil.
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
	return nil, nil
}
