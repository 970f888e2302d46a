package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// VerifyOptions says what is verified of a run, and what is mended.
type VerifyOptions struct {
	// Derived recomputes what follows from stored results, instead of hashing every stored byte.
	Derived bool
	// Repair makes again what is not as it should be, as new generations.
	Repair bool
	// Costly lets a repair ask teachers, train, and run models. Without it only what costs nothing is made again.
	Costly bool
	// Calls, if not nil, are the calls that the run's specification leads to, by action key: with them a result is made again of which
	// not even the manifest is left.
	Calls func(context.Context) (map[string]Call, error)
	// Progress, if not nil, is told what is being looked at.
	Progress func(string)
}

// Finding is one result that is not what it should be, or that could not be checked.
type Finding struct {
	Ref    artifact.Ref `json:"ref"`
	Cells  []string     `json:"cells,omitempty"`  // those that used it
	Output string       `json:"output,omitempty"` // empty: the manifest, or several
	// Problem says what is wrong; Differences name each value that does not match.
	Problem     string   `json:"problem"`
	Differences []string `json:"differences,omitempty"`
	// Repaired names the generation that is whole; Repair says why there is none, or what remains to be done.
	Repaired *artifact.Ref `json:"repaired,omitempty"`
	Repair   string        `json:"repair,omitempty"`
}

// Verification is what was verified of a run, and what was found.
type Verification struct {
	Run       string `json:"run"`
	Level     string `json:"level"`
	Manifests int    `json:"manifests"`
	Blobs     int    `json:"blobs,omitempty"`
	Bytes     int64  `json:"bytes,omitempty"`
	// Recomputed counts the results that were made again and compared.
	Recomputed int `json:"recomputed,omitempty"`
	// Findings are what does not match; Unchecked what could not be recomputed, with the reason.
	Findings  []Finding `json:"findings"`
	Unchecked []Finding `json:"unchecked,omitempty"`
}

// Good tells whether everything matches or has been repaired.
func (v *Verification) Good() bool {
	return !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Repaired == nil })
}

// Verify checks the results of a run: their bytes, or, for derived ones, that they follow from what they were made from.
func (a *Activities) Verify(ctx context.Context, run *artifact.RunRecord, o VerifyOptions) (*Verification, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	v := &Verification{Run: run.ID, Level: "bytes", Findings: []Finding{}}
	var err error
	if o.Derived {
		v.Level = "derived"
		err = a.verifyDerived(ctx, run, o, v)
	} else {
		err = a.verifyBytes(ctx, run, o, v)
	}
	return v, err
}

func (a *Activities) verifyBytes(ctx context.Context, run *artifact.RunRecord, o VerifyOptions, v *Verification) error {
	refs := run.Refs()
	report, err := a.Store.Verify(ctx, refs, func(r artifact.VerifyReport) {
		o.Progress(fmt.Sprintf("%d results, %d blobs, %d MiB", r.Manifests, r.Blobs, r.Bytes>>20))
	})
	if err != nil {
		return err
	}
	v.Manifests, v.Blobs, v.Bytes = report.Manifests, report.Blobs, report.Bytes
	cells := cellsOf(run)
	// A result that lost several outputs is one finding each, and is repaired once, what it was made from before it.
	slices.SortStableFunc(report.Failures, func(x, y artifact.VerifyFailure) int {
		return slices.Index(Stages, x.Ref.Stage) - slices.Index(Stages, y.Ref.Stage)
	})
	repaired := map[artifact.Ref]Finding{}
	for _, f := range report.Failures {
		finding := Finding{Ref: f.Ref, Cells: cells[f.Ref], Output: f.Output, Problem: damage(f.Err)}
		if replaced := (*artifact.ReplacedError)(nil); errors.As(f.Err, &replaced) {
			finding.Repair = replacedAdvice(run, replaced) + fmt.Sprintf("; starter verify %s --level derived says which values do not follow from it", run.ID)
			v.Findings = append(v.Findings, finding)
			continue
		}
		outcome, ok := repaired[f.Ref]
		if !ok {
			outcome = a.mend(ctx, run, f.Ref, o)
			repaired[f.Ref] = outcome
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		finding.Repaired, finding.Repair = outcome.Repaired, outcome.Repair
		v.Findings = append(v.Findings, finding)
	}
	return nil
}

// replacedAdvice says what to do about an input that was replaced.
func replacedAdvice(run *artifact.RunRecord, r *artifact.ReplacedError) string {
	return fmt.Sprintf("%[1]s was replaced after it had been used: delete actions/%[3]s/%[4]s/%[5]d.json, and starter verify %[2]s --repair brings the right one back",
		r.Input, run.ID, r.Input.Stage, r.Input.Key, r.Input.Generation)
}

// damage says what is wrong with an object, without advice: a finding brings its own.
func damage(err error) string {
	var corrupt *artifact.CorruptError
	switch {
	case errors.As(err, &corrupt):
		return fmt.Sprintf("%s is corrupt: want %s, got %s", corrupt.Object, corrupt.Want, corrupt.Got)
	case errors.Is(err, artifact.ErrNotFound):
		return "missing: " + err.Error()
	}
	return err.Error()
}

// mend finds a whole generation of a damaged result, or makes one.
func (a *Activities) mend(ctx context.Context, run *artifact.RunRecord, ref artifact.Ref, o VerifyOptions) Finding {
	if m, err := a.Store.Current(ctx, ref); err == nil && m.Generation > ref.Generation && a.whole(ctx, m) == nil {
		found := m.Ref()
		return Finding{Repaired: &found, Repair: "an earlier repair"}
	}
	m, err := a.Store.Manifest(ctx, ref)
	var newer *artifact.NewerError
	switch {
	case errors.As(err, &newer):
		return Finding{Repair: "it is left as it is: a newer version of this program wrote it, and can read it"}
	case err != nil:
		if m = a.copied(ctx, run, ref); m == nil {
			return a.recreate(ctx, run, ref, o)
		}
	}
	if found := a.relinked(ctx, m); found != nil {
		what := "another copy of the same bytes"
		if err != nil {
			what = "another copy of its manifest"
		}
		if !o.Repair {
			return Finding{Repair: fmt.Sprintf("the store holds %s: starter verify %s --repair puts it in its place", what, run.ID)}
		}
		stored, err := a.putGeneration(ctx, found)
		if err != nil {
			return Finding{Repair: err.Error()}
		}
		return Finding{Repaired: stored, Repair: what}
	}
	if cost := Cost(m.Stage, m.Params); cost != "" && !o.Costly {
		return Finding{Repair: fmt.Sprintf("making it again takes %s: starter verify %s --repair --costly, or start the run again", cost, run.ID)}
	}
	if !o.Repair {
		return Finding{Repair: fmt.Sprintf("starter verify %s --repair makes it again", run.ID)}
	}
	o.Progress("making " + ref.String() + " again")
	again, err := recomputation{a, run, false}.again(ctx, m)
	if err != nil {
		return Finding{Repair: err.Error()}
	}
	if again.Digest() != m.Digest() {
		return Finding{Repair: "made again, it came out different, so the damaged one cannot be replaced by it: start the run again"}
	}
	stored, err := a.putGeneration(ctx, again)
	if err != nil {
		return Finding{Repair: err.Error()}
	}
	return Finding{Repaired: stored, Repair: "made again"}
}

// copied finds the manifest of a result that cannot be read under its name: another generation of it, or the copy that the tables of
// a study keep of all manifests they rest on. What it says is checked by its key and, later, by its outputs' hashes.
func (a *Activities) copied(ctx context.Context, run *artifact.RunRecord, ref artifact.Ref) *artifact.Manifest {
	newest, err := a.Store.Generations(ctx, ref.Stage, ref.Key)
	if err != nil {
		return nil
	}
	for g := newest; g > 0; g-- {
		if m, err := a.Store.Manifest(ctx, artifact.Ref{Stage: ref.Stage, Key: ref.Key, Generation: g}); err == nil {
			return m
		}
	}
	var found *artifact.Manifest
	look := func(tables *artifact.Manifest) bool {
		var s reports.Study
		if readOutput(ctx, a.Store, tables, studyFile, &s) != nil {
			return false
		}
		for _, use := range s.Stages {
			if m := use.Manifest; m != nil && m.Stage == ref.Stage && m.Key == ref.Key && m.Check() == nil {
				found = m
			}
		}
		return found != nil
	}
	if run.Tables != nil {
		if m, err := a.Store.Current(ctx, *run.Tables); err == nil && look(m) {
			return found
		}
	}
	for _, r := range a.Store.Manifests(ctx, "tables") {
		if r.Err == nil && look(r.Manifest) {
			return found
		}
	}
	return nil
}

// recreate makes a result again of which nothing is known but its name: the run's specification leads to the call that has this key.
func (a *Activities) recreate(ctx context.Context, run *artifact.RunRecord, ref artifact.Ref, o VerifyOptions) Finding {
	const gone = "its manifest says how it was made and cannot be read, nor is there a copy of it"
	if o.Calls == nil {
		return Finding{Repair: gone + ": start the run again, which makes it anew beside the damaged one"}
	}
	if !o.Repair {
		return Finding{Repair: fmt.Sprintf("%s: starter verify %s --repair makes it again by the run's specification", gone, run.ID)}
	}
	calls, err := o.Calls(ctx)
	call, ok := calls[ref.Key]
	switch {
	case err != nil:
		return Finding{Repair: fmt.Sprintf("%s; the run's specification does not lead to it: %v", gone, err)}
	case !ok:
		return Finding{Repair: gone + ", and the run's specification does not lead to it: what it is made from is gone too, or another version of this program made it; start the run again"}
	}
	if cost := Cost(call.Stage, call.Params); cost != "" && !o.Costly {
		return Finding{Repair: fmt.Sprintf("%s; making it again takes %s: starter verify %s --repair --costly, or start the run again", gone, cost, run.ID)}
	}
	o.Progress("making " + ref.String() + " again")
	s, err := stageNamed(call.Stage)
	if err != nil {
		return Finding{Repair: err.Error()}
	}
	action, err := a.action(ctx, call)
	if err != nil {
		return Finding{Repair: err.Error()}
	}
	again, err := a.make(ctx, s, action, call)
	if err != nil {
		return Finding{Repair: err.Error()}
	}
	stored, err := a.putGeneration(ctx, again)
	if err != nil {
		return Finding{Repair: err.Error()}
	}
	return Finding{Repaired: stored, Repair: "made again by the run's specification"}
}

// copiesSought bounds how many copies of a blob are looked for. There is more than one only after a repair.
const copiesSought = 4

// relinked returns the manifest with whole copies of its outputs, nil when the store does not have them all. Several results may
// hold the same bytes, and the repair of one has stored them again.
func (a *Activities) relinked(ctx context.Context, m *artifact.Manifest) *artifact.Manifest {
	found := *m
	found.Outputs = slices.Clone(m.Outputs)
	for i, o := range found.Outputs {
		whole := a.Store.CheckBlob(ctx, o.Blob) == nil
		for n := 1; !whole && n <= copiesSought; n++ {
			if o.Blob.Copy = n; n == 1 {
				o.Blob.Copy = 0
			}
			whole = a.Store.CheckBlob(ctx, o.Blob) == nil
		}
		if !whole {
			return nil
		}
		found.Outputs[i] = o
	}
	return &found
}

// putGeneration stores a result beside all generations there are, readable or not.
func (a *Activities) putGeneration(ctx context.Context, m *artifact.Manifest) (*artifact.Ref, error) {
	newest, err := a.Store.Generations(ctx, m.Stage, m.Key)
	if err != nil {
		return nil, err
	}
	next := *m
	next.Generation = newest + 1
	stored, err := a.Store.PutManifest(ctx, &next)
	if err != nil {
		return nil, err
	}
	ref := stored.Ref()
	return &ref, nil
}

// whole checks every output of a result.
func (a *Activities) whole(ctx context.Context, m *artifact.Manifest) error {
	for _, o := range m.Outputs {
		if err := a.Store.CheckBlob(ctx, o.Blob); err != nil {
			return err
		}
	}
	return nil
}

// cellsOf lists for each result the cells that used it.
func cellsOf(run *artifact.RunRecord) map[artifact.Ref][]string {
	cells := map[artifact.Ref][]string{}
	for _, call := range run.Stages {
		if call.Cell != "" && !slices.Contains(cells[call.Ref], call.Cell) {
			cells[call.Ref] = append(cells[call.Ref], call.Cell)
		}
	}
	return cells
}

// readOutput reads a JSON output of a manifest.
func readOutput(ctx context.Context, s *artifact.Store, m *artifact.Manifest, name string, v any) error {
	out, ok := m.Output(name)
	if !ok {
		return fmt.Errorf("%s holds no %s", m.Ref(), name)
	}
	return s.ReadJSON(ctx, out.Blob, v)
}

// rawOutput is readOutput for values that are compared as they are.
func rawOutput(ctx context.Context, s *artifact.Store, m *artifact.Manifest, name string) (json.RawMessage, error) {
	var raw json.RawMessage
	err := readOutput(ctx, s, m, name, &raw)
	return raw, err
}
