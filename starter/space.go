package main

import (
	"os"
	"path/filepath"
)

// Space below which a disk is worth a warning, and below which a run will not get far.
const (
	littleSpace = 10 << 30
	noSpace     = 256 << 20
)

func (d *doctor) disk(what, dir string) {
	abs, free, err := spaceAt(dir)
	if err != nil {
		d.say(what, warns, "", "%s: free space is not known: %v", abs, err)
		return
	}
	d.space(what, abs, free)
}

// spaceAt returns a directory's own or nearest existing path, and the bytes that may still be written there.
func spaceAt(dir string) (abs string, free int64, err error) {
	if abs, err = filepath.Abs(dir); err != nil {
		return dir, 0, err
	}
	for {
		if _, statErr := os.Stat(abs); statErr == nil || filepath.Dir(abs) == abs {
			break
		}
		abs = filepath.Dir(abs) // what does not exist yet will lie on its parent's disk
	}
	free, err = freeSpace(abs)
	return abs, free, err
}

// space judges the bytes that are free on a disk.
func (d *doctor) space(what, abs string, free int64) {
	switch {
	case free < noSpace:
		d.say(what, failing, "free some space (starter gc shows what the store can spare), or use another disk", "%s: %s free", abs, size(free))
	case free < littleSpace:
		d.say(what, warns, "fine for the demo; a training of a large model saves states of three times its size", "%s: %s free", abs, size(free))
	default:
		d.say(what, works, "", "%s: %s free", abs, size(free))
	}
}
