package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultKeep is how long gc keeps everything, referred to or not.
const DefaultKeep = 7 * 24 * time.Hour

// GCOptions says what GC may remove.
type GCOptions struct {
	// Keep is the age up to which everything stays: what a run is about to refer to is young. 0 means DefaultKeep; less
	// than the longest a stage takes between storing a blob and its manifest is not safe while runs are under way.
	Keep time.Duration
	// Delete removes what was found; otherwise GC only reports.
	Delete bool
	// Now is the time ages are measured at; zero means the present.
	Now time.Time
}

// GCReport says what GC removed, or would remove.
type GCReport struct {
	Deleted   bool       // false: nothing was removed, this is what would be
	Garbage   []Info     // pointers, manifests, blobs and claims that nothing needs, in this order
	Leftovers []Leftover // what interrupted writes left behind
	Bytes     int64      // of both, where known
	Kept      int        // objects that stay
	KeptBytes int64
	// Stays counts the objects that stay by the reason for which they do.
	Stays map[string]GCCount
	// Running are the IDs of runs that have not ended. While there are any, all manifests stay, since such a run may
	// be about to reuse one.
	Running []string
	// Problems are documents that could not be read and that something may be needed by. While there are any, no result, blob
	// or pointer that is not needed otherwise goes either: a damaged document may have lost the very names it kept.
	Problems []error
}

// GCCount is a number of objects and their size.
type GCCount struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Reasons for which GC leaves an object.
const (
	staysYoung   = "younger than what is kept in any case"
	staysRun     = "used by a run, or by what a run used"
	staysRunning = "a run is under way, which may reuse any result"
	staysState   = "checkpoint of a training that a run may take up again"
	staysForeign = "not one of the store's own objects"
	staysUnknown = "a document that cannot be read may need it"
)

func (r *GCReport) stays(info Info, reason string) {
	r.Kept++
	r.KeptBytes += info.Size
	c := r.Stays[reason]
	r.Stays[reason] = GCCount{c.Objects + 1, c.Bytes + info.Size}
}

// GC finds what no run needs any more, by mark and sweep:
//
//   - Roots are all run records, everything younger than Keep, and the pointers of runs that are running or have failed
//     (a failed run can be resumed), unless the action they belong to has its result.
//   - A run record keeps the manifests it lists, those their inputs, and all of them their blobs. What counts is any
//     64-digit hash in a document that is a blob's name or an action's key. A blob mentioned only inside another blob does
//     not stay: name it in a manifest or a pointer's value.
//   - A run record, or a manifest or pointer that stays, that is damaged may have named anything: then all pointers,
//     manifests and blobs stay until it is repaired or removed. A manifest with a sound later generation is repaired.
//   - The rest goes: first pointers and manifests, then blobs, so that nothing that can be read ever names a missing
//     blob. Everything is marked again before, and each object looked at again: a writer that finds its bytes stored
//     already claims them, and a young claim keeps them.
//
// Documents of a newer version stop it: what they keep cannot be known.
func (s *Store) GC(ctx context.Context, opts GCOptions) (*GCReport, error) {
	if opts.Keep <= 0 {
		opts.Keep = DefaultKeep
	}
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	before := opts.Now.Add(-opts.Keep)
	live, err := s.mark(ctx, before)
	if err != nil {
		return nil, fmt.Errorf("gc: %w", err)
	}
	report := &GCReport{Running: live.running, Problems: live.problems, Stays: map[string]GCCount{}}
	for _, prefix := range []string{"pointers/", "actions/", "blobs/", "claims/"} {
		for info, err := range s.backend.List(ctx, prefix) {
			if err != nil {
				return nil, fmt.Errorf("gc: %w", err)
			}
			if why := live.keeps(info, before); why != "" {
				report.stays(info, why)
				continue
			}
			report.Garbage = append(report.Garbage, info)
			report.Bytes += info.Size
		}
	}
	janitor, _ := s.backend.(Janitor)
	if janitor != nil {
		for l, err := range janitor.Leftovers(ctx, before) {
			if err != nil {
				return nil, fmt.Errorf("gc: %w", err)
			}
			report.Leftovers = append(report.Leftovers, l)
			report.Bytes += max(l.Size, 0)
		}
	}
	if !opts.Delete {
		return report, nil
	}
	if err := s.sweep(ctx, report, before); err != nil {
		return report, fmt.Errorf("gc: %w", err)
	}
	for _, l := range report.Leftovers {
		if err := janitor.Discard(ctx, l); err != nil {
			return report, fmt.Errorf("gc: %w", err)
		}
	}
	report.Deleted = true
	return report, nil
}

// sweep deletes the report's garbage, except what has come to be needed since it was found.
func (s *Store) sweep(ctx context.Context, report *GCReport, before time.Time) error {
	live, err := s.mark(ctx, before)
	if err != nil {
		return err
	}
	found := report.Garbage
	report.Garbage, report.Bytes = nil, 0
	for _, l := range report.Leftovers {
		report.Bytes += max(l.Size, 0)
	}
	for _, old := range found {
		info, err := s.backend.Head(ctx, old.Key)
		if errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		claimed, err := s.claimed(ctx, info.Key, before)
		if err != nil {
			return err
		}
		why := live.keeps(info, before)
		if claimed {
			why = staysYoung
		}
		if why != "" {
			report.stays(info, why)
			continue
		}
		if err := s.backend.Delete(ctx, info.Key); err != nil {
			return err
		}
		report.Garbage = append(report.Garbage, info)
		report.Bytes += info.Size
	}
	return nil
}

// claimed tells whether a blob has a young claim.
func (s *Store) claimed(ctx context.Context, key string, before time.Time) (bool, error) {
	hash, ok := blobHash(key)
	if !ok {
		return false, nil
	}
	info, err := s.backend.Head(ctx, claimKey(hash))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && !info.Modified.Before(before), err
}

// blobHash returns the hash in a blob's key.
func blobHash(key string) (hash string, ok bool) {
	parts := strings.Split(key, "/")
	if parts[0] != "blobs" || len(parts) != 4 {
		return "", false
	}
	hash, _, _ = strings.Cut(parts[3], ".")
	return hash, true
}

// liveness is what marking found out.
type liveness struct {
	hashes   map[string]string // 64 hex digits, action keys and names of blobs, with the reason to keep them
	pointers map[string]bool   // keys of pointers that stay
	running  []string
	problems []error
}

// keeps returns why an object stays, "" when nothing needs it.
func (l *liveness) keeps(info Info, before time.Time) string {
	why := l.needs(info, before)
	if why == "" && len(l.problems) > 0 && !strings.HasPrefix(info.Key, "claims/") {
		return staysUnknown
	}
	return why
}

// needs is keeps by what could be read.
func (l *liveness) needs(info Info, before time.Time) string {
	if !info.Modified.Before(before) {
		return staysYoung
	}
	parts := strings.Split(info.Key, "/")
	switch {
	case parts[0] == "pointers":
		if l.pointers[info.Key] {
			return staysState
		}
		return ""
	case parts[0] == "actions" && len(parts) == 4:
		if why := l.hashes[parts[2]]; why != "" || len(l.running) == 0 {
			return why
		}
		return staysRunning
	case parts[0] == "claims":
		return ""
	}
	hash, blob := blobHash(info.Key)
	if !blob {
		return staysForeign
	}
	return l.hashes[hash]
}

var hashPattern = regexp.MustCompile(`[0-9a-f]{64}`)

// mark follows references from the roots.
func (s *Store) mark(ctx context.Context, before time.Time) (*liveness, error) {
	l := &liveness{hashes: map[string]string{}, pointers: map[string]bool{}}
	var queue []string // hashes whose manifests are still to be read
	add := func(text, why string) {
		for _, h := range hashPattern.FindAllString(text, -1) {
			if l.hashes[h] == "" {
				l.hashes[h] = why
				queue = append(queue, h)
			}
		}
	}

	var unfinished strings.Builder // the texts of run records that still need their pointers
	for info, err := range s.backend.List(ctx, "runs/") {
		if err != nil {
			return nil, err
		}
		text, there, err := s.document(ctx, info.Key, RunVersion)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		add(text, staysRun)
		r, _, err := s.readRun(ctx, info.Key)
		switch {
		case err != nil:
			l.problems = append(l.problems, err)
			unfinished.WriteString(text)
		case r.Status == Running:
			l.running = append(l.running, r.ID)
			unfinished.WriteString(text)
		case r.Status == Failed:
			unfinished.WriteString(text)
		}
	}
	slices.Sort(l.running)
	l.running = slices.Compact(l.running)

	manifests := map[string][]string{} // keys by action key
	for info, err := range s.backend.List(ctx, "actions/") {
		if err != nil {
			return nil, err
		}
		ref, ok := parseManifestKey(info.Key)
		if !ok {
			continue
		}
		manifests[ref.Key] = append(manifests[ref.Key], info.Key)
		switch {
		case !info.Modified.Before(before):
			add(ref.Key, staysYoung)
		case len(l.running) > 0:
			add(ref.Key, staysRunning)
		}
	}
	for info, err := range s.backend.List(ctx, "pointers/") {
		if err != nil {
			return nil, err
		}
		text, there, err := s.document(ctx, info.Key, PointerVersion)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		finished := slices.ContainsFunc(hashPattern.FindAllString(info.Key, -1), func(h string) bool { return manifests[h] != nil })
		if !info.Modified.Before(before) || !finished && (len(l.running) > 0 || mentions(unfinished.String(), info.Key)) {
			l.pointers[info.Key] = true
			add(text, staysState)
			var p Pointer
			if err := s.unseal(info.Key, []byte(text), &p); err != nil {
				l.problems = append(l.problems, err)
			}
		}
	}

	for info, err := range s.backend.List(ctx, "claims/") {
		if err != nil {
			return nil, err
		}
		if !info.Modified.Before(before) {
			add(info.Key, staysYoung)
		}
	}

	for len(queue) > 0 {
		h := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		damaged, repaired := map[int]error{}, 0
		for _, key := range manifests[h] {
			text, there, err := s.document(ctx, key, ManifestVersion)
			if err != nil {
				return nil, err
			}
			if !there {
				continue
			}
			ref, _ := parseManifestKey(key)
			var m Manifest
			if err := s.unseal(key, []byte(text), &m); err != nil {
				damaged[ref.Generation] = err
			} else {
				repaired = max(repaired, ref.Generation)
			}
			add(text, l.hashes[h])
		}
		for _, generation := range slices.Sorted(maps.Keys(damaged)) {
			if generation > repaired {
				l.problems = append(l.problems, damaged[generation])
			}
		}
	}
	return l, nil
}

// mentions tells whether a run record names a pointer: by its name, or by a hash its name contains, such as the key of
// the action whose checkpoint it is.
func mentions(records, pointer string) bool {
	name := strings.TrimSuffix(strings.TrimPrefix(pointer, "pointers/"), ".json")
	if strings.Contains(records, name) {
		return true
	}
	return slices.ContainsFunc(hashPattern.FindAllString(name, -1), func(h string) bool { return strings.Contains(records, h) })
}

// document returns a document's text and whether it is still there, and refuses newer versions.
func (s *Store) document(ctx context.Context, key string, known int) (text string, there bool, err error) {
	data, _, err := s.read(ctx, key, maxDocument)
	if errors.Is(err, ErrNotFound) {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err == nil && v.Version > known {
		return "", false, &NewerError{Object: key, Version: v.Version, Known: known}
	}
	return string(data), true, nil
}

// Summary counts the garbage by kind: pointers, manifests (actions) and blobs.
func (r *GCReport) Summary() string {
	counts := map[string]int{}
	for _, g := range r.Garbage {
		kind, _, _ := strings.Cut(g.Key, "/")
		counts[kind]++
	}
	verb := "would be removed"
	if r.Deleted {
		verb = "removed"
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	parts = append(parts, fmt.Sprintf("%d interrupted writes", len(r.Leftovers)))
	return fmt.Sprintf("%s %s, %d bytes; %d objects stay", strings.Join(parts, ", "), verb, r.Bytes, r.Kept)
}
