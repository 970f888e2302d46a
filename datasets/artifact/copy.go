package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// CopyReport is what Copy has done.
type CopyReport struct {
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	// Present counts the manifests that the destination had already.
	Present int `json:"present"`
	// Problems are results that could not be copied, each with its reason. Everything else was.
	Problems []VerifyFailure `json:"problems,omitempty"`
}

// Copy copies a run into another store: its results, all they were made from, and its record, blobs before the manifests
// that name them. Every blob is hashed on its way. A result that the destination has already stays what it is there; one
// that means something else under the same name is a problem, since the run's numbers do not follow from it.
// progress, if not nil, is called after each result.
func Copy(ctx context.Context, from, to *Store, run *RunRecord, progress func(CopyReport)) (*CopyReport, error) {
	report := &CopyReport{}
	seen := map[Ref]bool{}
	var visit func(ref Ref) error
	visit = func(ref Ref) error {
		if seen[ref] {
			return nil
		}
		seen[ref] = true
		m, err := from.Current(ctx, ref)
		if err == nil {
			for _, role := range slices.Sorted(maps.Keys(m.Inputs)) {
				if err := visit(m.Inputs[role]); err != nil {
					return err
				}
			}
			err = report.result(ctx, from, to, m)
			if err == nil && m.Ref() != ref {
				// The result was repaired: those who know the earlier copy must find its manifest too.
				err = copyDocument(ctx, from, to, ref)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			report.Problems = append(report.Problems, VerifyFailure{Ref: ref, Error: err.Error(), Err: err})
		}
		if progress != nil {
			progress(*report)
		}
		return nil
	}
	for _, ref := range run.Refs() {
		if err := visit(ref); err != nil {
			return report, err
		}
	}
	return report, to.putRun(ctx, run)
}

// result copies one manifest and its blobs.
func (r *CopyReport) result(ctx context.Context, from, to *Store, m *Manifest) error {
	switch there, err := to.Current(ctx, m.Ref()); {
	case err == nil && there.Digest() != m.Digest():
		return fmt.Errorf("%s in %s holds something else (%s instead of %s): import into another store", m.Ref(), to.URI(), there.Digest(), m.Digest())
	case err == nil:
		r.Present++
		return nil
	case !errors.Is(err, ErrNotFound):
		return err
	}
	for _, o := range m.Outputs {
		data, err := from.OpenBlob(ctx, o.Blob)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		b, err := to.PutBlob(ctx, data)
		if err = errors.Join(err, data.Close()); err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		r.Blobs++
		r.Bytes += b.Size
		if b.Copy != o.Blob.Copy {
			// The manifest names the place of a copy, which need not be free there.
			mine := *m
			mine.Outputs = slices.Clone(m.Outputs)
			for i := range mine.Outputs {
				if mine.Outputs[i].Blob == o.Blob {
					mine.Outputs[i].Blob = b
				}
			}
			m = &mine
		}
	}
	if _, err := to.PutManifest(ctx, m); err != nil {
		return err
	}
	r.Manifests++
	return nil
}

// copyDocument copies a manifest as it is, unless there is one.
func copyDocument(ctx context.Context, from, to *Store, ref Ref) error {
	key, err := ref.path()
	if err != nil {
		return err
	}
	data, _, err := from.read(ctx, key, maxDocument)
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = to.backend.Put(ctx, key, bytes.NewReader(data), int64(len(data)), Condition{IfNoneMatch: true})
	if errors.Is(err, ErrExists) {
		return nil
	}
	return err
}
