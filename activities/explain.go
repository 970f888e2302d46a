package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// Explanation is why a run's result was found in the store, or had to be made.
type Explanation struct {
	Stage string       `json:"stage"`
	Ref   artifact.Ref `json:"ref"`
	Cells []string     `json:"cells"`
	Roles []string     `json:"roles,omitempty"`
	// Hit says that the result was there: made by an earlier run, or by another one.
	Hit      bool          `json:"hit"`
	By       string        `json:"made_by,omitempty"` // the workflow that made it
	Finished time.Time     `json:"made_at,omitzero"`
	Took     time.Duration `json:"took_ns,omitempty"`
	// Nearest is the most similar result that was there before; Differs are the fields in which the two
	// differ, and so why this one could not be reused.
	Nearest *artifact.Ref        `json:"nearest,omitempty"`
	Differs []artifact.FieldDiff `json:"differs,omitempty"`
	// Because leads from inputs that differ to the results that were made anew for the same reason.
	Because []string `json:"because,omitempty"`
	// Warnings are the result's own: what failed, what is incomplete or suspicious.
	Warnings []string `json:"warnings,omitempty"`
	Problem  string   `json:"problem,omitempty"`
}

// Explain says for each result of a run whether it was a hit or a miss, and which fields of its key made it a miss.
func Explain(ctx context.Context, store *artifact.Store, run *artifact.RunRecord) ([]Explanation, error) {
	known := map[string][]*artifact.Manifest{} // by stage
	others := func(stage string) []*artifact.Manifest {
		if known[stage] == nil {
			known[stage] = []*artifact.Manifest{}
			for _, r := range store.Manifests(ctx, stage) {
				if r.Err == nil {
					known[stage] = append(known[stage], r.Manifest)
				}
			}
		}
		return known[stage]
	}
	var all []Explanation
	index := map[artifact.Ref]int{}
	for _, call := range run.Stages {
		if call.Ref.Generation == 0 {
			all = append(all, Explanation{Stage: call.Stage, Cells: []string{call.Cell}, Problem: "there is no result: the stage failed, or was still running"})
			continue
		}
		i, seen := index[call.Ref]
		if !seen {
			i = len(all)
			index[call.Ref] = i
			all = append(all, explainResult(ctx, store, call, others(call.Stage)))
		}
		e := &all[i]
		if !slices.Contains(e.Cells, call.Cell) {
			e.Cells = append(e.Cells, call.Cell)
		}
		if call.Role != "" && !slices.Contains(e.Roles, call.Role) {
			e.Roles = append(e.Roles, call.Role)
		}
	}
	return all, ctx.Err()
}

// explainResult compares a result with those of its stage that were there before it.
func explainResult(ctx context.Context, store *artifact.Store, call artifact.StageCall, others []*artifact.Manifest) Explanation {
	e := Explanation{Stage: call.Stage, Ref: call.Ref, Hit: call.Reused}
	m, err := store.Current(ctx, call.Ref)
	if err != nil {
		e.Problem = err.Error()
		return e
	}
	e.Warnings = m.Warnings
	e.By, e.Finished, e.Took = m.Workflow.ID, m.Finished, m.Finished.Sub(m.Started)
	if call.Reused {
		return e
	}
	var nearest *artifact.Manifest
	for _, other := range others {
		if other.Key == m.Key || other.Finished.After(m.Started) {
			continue
		}
		d := artifact.Diff(other.ActionKeyInput, m.ActionKeyInput)
		if slices.ContainsFunc(d, ofAnotherBenchmark) {
			continue
		}
		if nearest == nil || closer(d, e.Differs) || len(d) == len(e.Differs) && other.Finished.After(nearest.Finished) {
			nearest, e.Differs = other, d
		}
	}
	if nearest == nil {
		return e
	}
	ref := nearest.Ref()
	e.Nearest = &ref
	for _, d := range e.Differs {
		role, ok := strings.CutPrefix(d.Path, "inputs.")
		if !ok {
			continue
		}
		was, had := nearest.Inputs[role]
		is, has := m.Inputs[role]
		switch {
		case had && has && was.Key == is.Key:
			e.Because = append(e.Because, fmt.Sprintf("%s: %s was made again and came out different", role, is))
		case had && has:
			e.Because = append(e.Because, fmt.Sprintf("%s: made from %s instead of %s", role, is, was))
		case !had && !has:
			e.Because = append(e.Because, role+": files outside of the store have changed")
		}
	}
	return e
}

// ofAnotherBenchmark tells whether a difference is one of the benchmark, or between one and the held-out instructions: such results say
// nothing about each other, and none was made in the other's place.
func ofAnotherBenchmark(d artifact.FieldDiff) bool {
	switch d.Path {
	case "params.benchmark", "params.benchmark.benchmark", "params.answer", "params.answer.benchmark":
		return true
	}
	return false
}

// closer tells whether differences a are fewer than b. Parameters weigh more than inputs: a result with the
// same parameters and other inputs is the same question about other data.
func closer(a, b []artifact.FieldDiff) bool {
	weigh := func(l []artifact.FieldDiff) (parameters, all int) {
		for _, d := range l {
			if !strings.HasPrefix(d.Path, "inputs.") {
				parameters++
			}
		}
		return parameters, len(l)
	}
	pa, na := weigh(a)
	pb, nb := weigh(b)
	if na != nb {
		return na < nb
	}
	return pa < pb
}

// Show is a value of a difference, short enough for a line.
func Show(raw json.RawMessage) string { return brief(raw) }
