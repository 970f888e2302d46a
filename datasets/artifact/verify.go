package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// VerifyFailure is one artifact that is not what it should be.
type VerifyFailure struct {
	Ref    Ref    `json:"ref"`
	Output string `json:"output,omitempty"` // empty: the manifest itself
	Error  string `json:"error"`
	Err    error  `json:"-"`
}

// ReplacedError says that what a result was made from is another result now: whole, but not the one that the result's key names. No repair
// of bytes mends that.
type ReplacedError struct {
	Role      string
	Input     Ref
	Want, Got string // digests
}

// Error names both.
func (e *ReplacedError) Error() string {
	return fmt.Sprintf("it was made from %s %s, but %s is now %s", e.Role, e.Want, e.Input, e.Got)
}

// VerifyReport is what Verify has looked at and found.
type VerifyReport struct {
	Manifests int             `json:"manifests"`
	Blobs     int             `json:"blobs"`
	Bytes     int64           `json:"bytes"`
	Failures  []VerifyFailure `json:"failures,omitempty"`
}

// Verify reads every manifest in refs and everything they were made from, and hashes every blob. It checks, too, that
// each result was made from the inputs it names. A failure is listed and the rest is still verified; only ctx ends it.
// progress, if not nil, is called after each object.
func (s *Store) Verify(ctx context.Context, refs []Ref, progress func(VerifyReport)) (*VerifyReport, error) {
	v := &verification{s: s, progress: progress, manifests: map[Ref]*Manifest{}, blobs: map[Blob]error{}}
	queue := slices.Clone(refs)
	for len(queue) > 0 {
		ref := queue[0]
		queue = queue[1:]
		if _, seen := v.manifests[ref]; seen {
			continue
		}
		m, err := s.Manifest(ctx, ref)
		if ctx.Err() != nil {
			return &v.report, ctx.Err()
		}
		v.manifests[ref] = m
		v.report.Manifests++
		if err != nil {
			v.fail(ref, "", err)
			// A later generation stands in for it, and leads to what it was made from.
			if m, err = s.Current(ctx, ref); err != nil {
				continue
			}
			v.manifests[ref] = m
		}
		for _, o := range m.Outputs {
			if err := v.blob(ctx, ref, o); err != nil {
				return &v.report, err
			}
		}
		for _, role := range slices.Sorted(maps.Keys(m.Inputs)) {
			queue = append(queue, m.Inputs[role])
		}
		v.tell()
	}
	for ref, m := range v.manifests {
		if m != nil {
			v.inputs(ref, m)
		}
	}
	slices.SortStableFunc(v.report.Failures, func(a, b VerifyFailure) int {
		return slices.Compare([]string{a.Ref.Stage, a.Ref.Key, a.Output}, []string{b.Ref.Stage, b.Ref.Key, b.Output})
	})
	return &v.report, nil
}

type verification struct {
	s         *Store
	progress  func(VerifyReport)
	report    VerifyReport
	manifests map[Ref]*Manifest // nil: unreadable
	blobs     map[Blob]error
}

func (v *verification) fail(ref Ref, output string, err error) {
	v.report.Failures = append(v.report.Failures, VerifyFailure{Ref: ref, Output: output, Error: err.Error(), Err: err})
}

func (v *verification) tell() {
	if v.progress != nil {
		v.progress(v.report)
	}
}

// blob checks an output; blobs that several results share are read once.
func (v *verification) blob(ctx context.Context, ref Ref, o Output) error {
	err, seen := v.blobs[o.Blob]
	if !seen {
		err = v.s.CheckBlob(ctx, o.Blob)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.blobs[o.Blob] = err
		v.report.Blobs++
		v.report.Bytes += o.Blob.Size
	}
	if err != nil {
		v.fail(ref, o.Name, err)
	}
	v.tell()
	return nil
}

// inputs checks that what the key says went in is what the named inputs are.
func (v *verification) inputs(ref Ref, m *Manifest) {
	replaced, err := m.Replaced(v.manifests)
	if err != nil {
		v.fail(ref, "", err)
	}
	for _, r := range replaced {
		v.fail(ref, "", r)
	}
}

// Replaced lists which of a result's inputs, among those that are given, are not what its key says went in.
func (m *Manifest) Replaced(inputs map[Ref]*Manifest) ([]*ReplacedError, error) {
	var action struct {
		Inputs map[string]string `json:"inputs"`
	}
	if err := json.Unmarshal(m.ActionKeyInput, &action); err != nil {
		return nil, fmt.Errorf("action: %w", err)
	}
	var out []*ReplacedError
	for _, role := range slices.Sorted(maps.Keys(action.Inputs)) {
		in, named := m.Inputs[role]
		if input := inputs[in]; named && input != nil && input.Digest() != action.Inputs[role] {
			out = append(out, &ReplacedError{Role: role, Input: input.Ref(), Want: action.Inputs[role], Got: input.Digest()})
		}
	}
	return out, nil
}
