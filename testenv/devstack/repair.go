package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/versity/versitygw/backend/posix"
)

var (
	// The backend replaces an object by linking the new one beside it under such a name and renaming it.
	strayName = regexp.MustCompile(`^\..+\.sgwtmp\.\d+$`)
	// A completion renames the upload it works on to UPLOAD-ID.ETAG.inprogress, and back if it fails.
	inProgress = regexp.MustCompile(`^([^.]+)\..+\.inprogress$`)
)

// repair puts right what a kill of the gateway can leave behind, and returns how many things it touched. None of them
// was ever acknowledged:
//
//   - files staged but never named, and replacements linked but not renamed (they would be listed under odd names);
//   - uploads claimed by a completion, which their owner could neither continue nor abort;
//   - sidecar attributes of objects that never got their name: a later conditional PUT of that key would be refused
//     for the sake of an object that cannot be read.
func (l layout) repair() (int, error) {
	buckets, err := os.ReadDir(l.root)
	if err != nil {
		return 0, err
	}
	repaired := 0
	for _, b := range buckets {
		if !b.IsDir() || b.Name()[0] == '.' {
			continue
		}
		for _, step := range []func(bucket string) (int, error){l.removeStaged, l.releaseUploads, l.removeStrays, l.removeOrphanAttributes} {
			n, err := step(b.Name())
			repaired += n
			if err != nil {
				return repaired, err
			}
		}
	}
	return repaired, nil
}

// removeStaged removes staged files (on filesystems without O_TMPFILE they have names).
func (l layout) removeStaged(bucket string) (int, error) {
	n := 0
	for _, pattern := range []string{posix.MetaTmpDir + "/*", posix.MetaTmpMultipartDir + "/*/*"} {
		names, err := filepath.Glob(filepath.Join(l.root, bucket, pattern))
		if err != nil {
			return n, err
		}
		for _, name := range names {
			if fi, err := os.Lstat(name); err != nil || !fi.Mode().IsRegular() {
				continue
			}
			if err := os.Remove(name); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// releaseUploads gives claimed uploads their names back, data and sidecar attributes alike.
func (l layout) releaseUploads(bucket string) (int, error) {
	n := 0
	for _, root := range []string{l.root, l.sidecar} {
		if root == "" {
			continue
		}
		names, err := filepath.Glob(filepath.Join(root, bucket, posix.MetaTmpMultipartDir, "*", "*"))
		if err != nil {
			return n, err
		}
		for _, name := range names {
			m := inProgress.FindStringSubmatch(filepath.Base(name))
			if m == nil {
				continue
			}
			if err := os.Rename(name, filepath.Join(filepath.Dir(name), m[1])); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func (l layout) removeStrays(bucket string) (int, error) {
	n := 0
	err := filepath.WalkDir(l.bucketDir(bucket), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == posix.MetaTmpDir {
			return fs.SkipDir
		}
		if e.Type().IsRegular() && strayName.MatchString(e.Name()) {
			n++
			return os.Remove(path)
		}
		return nil
	})
	return n, err
}

func (l layout) removeOrphanAttributes(bucket string) (int, error) {
	if l.sidecar == "" {
		return 0, nil
	}
	n, base := 0, filepath.Join(l.sidecar, bucket)
	err := filepath.WalkDir(base, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == base {
			return nil
		}
		if err != nil {
			return err
		}
		if !e.IsDir() || e.Name() != "meta" {
			return nil
		}
		object, err := filepath.Rel(l.sidecar, filepath.Dir(path))
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(l.root, object)); errors.Is(err, fs.ErrNotExist) {
			n++
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove attributes of %s: %w", object, err)
			}
			return fs.SkipDir
		}
		return nil
	})
	return n, err
}
