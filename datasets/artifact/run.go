package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// RunVersion is the newest run record format this program writes and reads.
const RunVersion = 1

// Status says how far a run is.
type Status string

// The statuses of a run.
const (
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
)

// Finished tells whether the run has ended.
func (s Status) Finished() bool { return s == Completed || s == Failed || s == Cancelled }

// RunRecord says what a run was asked, what it used, reused results too, and how it ended. Failed and cancelled runs
// have one as well. With the manifests it is all that tables, lists and explanations need.
type RunRecord struct {
	Version int    `json:"version"`
	ID      string `json:"id"`               // the workflow ID: name and digest of the spec
	RunID   string `json:"run_id,omitempty"` // the execution: starting a failed or finished run again makes another record
	Name    string `json:"name"`
	Kind    string `json:"kind"` // experiment or study
	// Sequence grows with each version of the record that the run writes, so that a late repetition of an earlier
	// version never replaces a later one.
	Sequence int64           `json:"sequence"`
	Spec     json.RawMessage `json:"spec"` // with defaults filled in
	Status   Status          `json:"status"`
	Error    *RunError       `json:"error,omitempty"`
	Stages   []StageCall     `json:"stages,omitempty"`
	// Cells are the experiments of a study; Failed says why some have no result.
	Cells  []string          `json:"cells,omitempty"`
	Failed map[string]string `json:"failed,omitempty"`
	// Tables is the manifest of the tables stage, once there are tables.
	Tables *Ref `json:"tables,omitempty"`
	// Pointers are the names of the pointers the run's unfinished stages use; gc keeps what they name.
	Pointers []string  `json:"pointers,omitempty"`
	Code     Code      `json:"code"`
	Started  time.Time `json:"started"`
	Updated  time.Time `json:"updated"`
	Finished time.Time `json:"finished,omitzero"`
}

// RunError says why a run failed and what to do.
type RunError struct {
	Stage   string `json:"stage,omitempty"`
	Type    string `json:"type,omitempty"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
}

// StageCall is one use of a stage by a run.
type StageCall struct {
	Cell  string `json:"cell,omitempty"` // the experiment of a study, such as "method=packing,seed=2"
	Role  string `json:"role,omitempty"` // what the result is to the run, where a stage is called more than once
	Stage string `json:"stage"`
	// Ref names the result. A generation of 0 says that there is none (yet): the stage runs, or failed.
	Ref    Ref  `json:"ref"`
	Reused bool `json:"reused"` // found in the store rather than computed by this run
}

// Refs returns the manifests the run used, each once, in the order of its calls.
func (r *RunRecord) Refs() []Ref {
	var refs []Ref
	add := func(ref Ref) {
		if ref.Generation > 0 && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	for _, c := range r.Stages {
		add(c.Ref)
	}
	if r.Tables != nil {
		add(*r.Tables)
	}
	return refs
}

func (r *RunRecord) key() (string, error) {
	if err := checkName("run", r.ID); err != nil {
		return "", err
	}
	run := r.RunID
	if run == "" {
		run = "local"
	}
	if err := checkName("run "+r.ID+": execution", run); err != nil {
		return "", err
	}
	return "runs/" + r.ID + "/" + run + ".json", nil
}

// replaces tells whether r may take the place of old: a finished record stays unless a later finished one comes, and
// among records that are equally far the sequence decides.
func (r *RunRecord) replaces(old *RunRecord) bool {
	if r.Status.Finished() != old.Status.Finished() {
		return r.Status.Finished()
	}
	return r.Sequence >= old.Sequence
}

// PutRun stores a run record. A record that is older than the stored one (a late repetition) changes nothing and is no
// error. It sets Version and Updated.
func (s *Store) PutRun(ctx context.Context, r *RunRecord) error {
	r.Version = RunVersion
	r.Updated = time.Now().UTC()
	return s.putRun(ctx, r)
}

// putRun is PutRun for a record as it is, such as a copied one.
func (s *Store) putRun(ctx context.Context, r *RunRecord) error {
	key, err := r.key()
	if err != nil {
		return err
	}
	if r.Status != Running && !r.Status.Finished() {
		return fmt.Errorf("run %s: unknown status %q", r.ID, r.Status)
	}
	data, err := seal(r)
	if err != nil {
		return fmt.Errorf("run %s: %w", r.ID, err)
	}
	for attempt := 0; ; attempt++ {
		old, etag, err := s.readRun(ctx, key)
		cond := Condition{IfMatch: etag}
		var corrupt *CorruptError
		switch {
		case errors.Is(err, ErrNotFound):
			cond = Condition{IfNoneMatch: true}
		case errors.As(err, &corrupt) && etag != "":
			// Unlike a result, a run's record can be told again by the run itself.
		case err != nil:
			return err
		case !r.replaces(old):
			return nil
		}
		_, err = s.backend.Put(ctx, key, bytes.NewReader(data), int64(len(data)), cond)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrExists) && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotFound) {
			return err
		}
		if stored, _, err := s.read(ctx, key, maxDocument); err == nil && bytes.Equal(stored, data) {
			return nil // the change was this very put, which the client repeated
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("run %s: %w", r.ID, err)
		}
	}
}

// readRun also returns the entity tag of a record that is corrupt.
func (s *Store) readRun(ctx context.Context, key string) (*RunRecord, string, error) {
	data, info, err := s.read(ctx, key, maxDocument)
	if err != nil {
		return nil, "", err
	}
	var r RunRecord
	if err := s.unseal(key, data, &r); err != nil {
		return nil, info.ETag, err
	}
	if r.Version > RunVersion {
		return nil, "", &NewerError{Object: key, Version: r.Version, Known: RunVersion}
	}
	if k, err := r.key(); err != nil || k != key {
		return nil, info.ETag, &CorruptError{Store: s.uri, Object: key, Want: "the record of this run", Got: "the record of " + r.ID}
	}
	return &r, info.ETag, nil
}

// Run returns the latest record of a run: of its executions the one that started last.
func (s *Store) Run(ctx context.Context, id string) (*RunRecord, error) {
	if err := checkName("run", id); err != nil {
		return nil, err
	}
	var latest *RunRecord
	var failure error
	for r, err := range s.Executions(ctx, id) {
		if err != nil {
			failure = err
		} else if latest == nil || r.Started.After(latest.Started) {
			latest = r
		}
	}
	switch {
	case latest != nil:
		return latest, nil
	case failure != nil:
		return nil, failure
	}
	return nil, fmt.Errorf("run %s: %w; `starter list` shows the runs of %s", id, ErrNotFound, s.uri)
}

// Executions yields the record of every execution of one run, as Runs does.
func (s *Store) Executions(ctx context.Context, id string) iter.Seq2[*RunRecord, error] {
	return s.runs(ctx, "runs/"+id+"/")
}

// Runs yields the record of every execution of every run, in order of IDs. A record that cannot be read is an error,
// and the iteration goes on.
func (s *Store) Runs(ctx context.Context) iter.Seq2[*RunRecord, error] { return s.runs(ctx, "runs/") }

func (s *Store) runs(ctx context.Context, prefix string) iter.Seq2[*RunRecord, error] {
	return func(yield func(*RunRecord, error) bool) {
		for info, err := range s.backend.List(ctx, prefix) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !strings.HasSuffix(info.Key, ".json") {
				continue
			}
			r, _, err := s.readRun(ctx, info.Key)
			if errors.Is(err, ErrNotFound) {
				continue // deleted since
			}
			if !yield(r, err) {
				return
			}
		}
	}
}
