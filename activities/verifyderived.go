package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// verifyDerived makes again, apart from the store, whatever costs nothing to make, and compares.
func (a *Activities) verifyDerived(ctx context.Context, run *artifact.RunRecord, o VerifyOptions, v *Verification) (err error) {
	manifests, current, err := a.closure(ctx, run, o, v)
	if err != nil {
		return err
	}
	cells := cellsOf(run)
	aside, remove, err := a.aside()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	for _, m := range manifests {
		v.Manifests++
		f := Finding{Ref: m.Ref(), Cells: cells[m.Ref()]}
		replaced, err := m.Replaced(current)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Ref(), err)
		}
		cost := Cost(m.Stage, m.Params)
		if len(replaced) > 0 {
			f.Problem, f.Repair = replaced[0].Error(), replacedAdvice(run, replaced[0])
			if cost == "" {
				o.Progress("recomputing " + m.Ref().String())
				if again, err := (recomputation{aside, run, true}).again(ctx, m); err == nil {
					v.Recomputed++
					f.Differences, err = differences(ctx, a.Store, aside.Store, m, again)
					if err != nil {
						f.Differences = []string{err.Error()}
					}
				}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.Findings = append(v.Findings, f)
			continue
		}
		if cost != "" {
			f.Problem = "making it again takes " + cost
			v.Unchecked = append(v.Unchecked, f)
			continue
		}
		o.Progress("recomputing " + m.Ref().String())
		again, err := recomputation{aside, run, false}.again(ctx, m)
		var impossible *NotReproducibleError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &impossible):
			f.Problem = impossible.Reason
			v.Unchecked = append(v.Unchecked, f)
			continue
		case err != nil:
			f.Problem = err.Error()
			f.Repair = fmt.Sprintf("starter verify %s finds damaged bytes", run.ID)
			v.Findings = append(v.Findings, f)
			continue
		}
		v.Recomputed++
		if f.Differences, err = differences(ctx, a.Store, aside.Store, m, again); err != nil {
			f.Problem = err.Error()
		} else if len(f.Differences) > 0 {
			f.Problem = "it does not follow from what it was made from"
		} else {
			continue
		}
		f.Repair = fmt.Sprintf("starter verify %s --level derived --repair makes it again", run.ID)
		if o.Repair {
			f.Repaired, f.Repair = a.replace(ctx, run, m)
		}
		v.Findings = append(v.Findings, f)
	}
	return nil
}

// replace stores a result that does not follow from its inputs as a new generation that does.
func (a *Activities) replace(ctx context.Context, run *artifact.RunRecord, m *artifact.Manifest) (*artifact.Ref, string) {
	again, err := recomputation{a, run, false}.again(ctx, m)
	if err != nil {
		return nil, err.Error()
	}
	stored, err := a.putGeneration(ctx, again)
	switch {
	case err != nil:
		return nil, err.Error()
	case again.Digest() == m.Digest():
		return stored, "made again"
	}
	// Who reads the run by its record still finds the old one, and so must keep hearing of it.
	return nil, fmt.Sprintf("made again as %s, which is another result: start the run again, and what was made from the old one is made anew", stored)
}

// closure returns all results of a run and what they were made from, inputs first, and by the names under which they were used.
// Unreadable ones are findings, and repaired where that is asked for.
func (a *Activities) closure(ctx context.Context, run *artifact.RunRecord, o VerifyOptions, v *Verification) ([]*artifact.Manifest, map[artifact.Ref]*artifact.Manifest, error) {
	var all []*artifact.Manifest
	current := map[artifact.Ref]*artifact.Manifest{}
	seen := map[artifact.Ref]bool{}
	cells := cellsOf(run)
	var visit func(ref artifact.Ref) error
	visit = func(ref artifact.Ref) error {
		if seen[ref] {
			return nil
		}
		seen[ref] = true
		m, err := a.Store.Current(ctx, ref)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			outcome := a.mend(ctx, run, ref, o)
			outcome.Ref, outcome.Cells, outcome.Problem = ref, cells[ref], damage(err)
			v.Findings = append(v.Findings, outcome)
			if outcome.Repaired == nil {
				return nil
			}
			if m, err = a.Store.Manifest(ctx, *outcome.Repaired); err != nil {
				return err
			}
		}
		for _, role := range slices.Sorted(maps.Keys(m.Inputs)) {
			if err := visit(m.Inputs[role]); err != nil {
				return err
			}
		}
		all = append(all, m)
		current[ref] = m
		return nil
	}
	for _, ref := range run.Refs() {
		if err := visit(ref); err != nil {
			return nil, nil, err
		}
	}
	return all, current, nil
}
