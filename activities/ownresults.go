package activities

import (
	"context"
	"maps"
	"slices"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// ownResults say which of a run's results stand where its manifests name another run's, or another cell's. A result that was found in the
// store names as inputs what the run or the cell that made it gave it; this one gave it equal ones, which may have been made otherwise: by
// another model, or judged by another judge. What is told of a run and a cell is told of their own. nil changes nothing.
type ownResults struct {
	store  *artifact.Store
	calls  []artifact.StageCall
	listed map[string]map[string]bool // the cells that use a result, by its stage and key: another generation is the same result
	known  map[artifact.Ref]string    // digests
}

func newOwnResults(store *artifact.Store, run *artifact.RunRecord) *ownResults {
	if run == nil {
		return nil
	}
	o := &ownResults{store: store, listed: map[string]map[string]bool{}, known: map[artifact.Ref]string{}}
	for _, ref := range run.Refs() {
		o.listed[ref.Stage+ref.Key] = map[string]bool{}
	}
	for _, call := range run.Stages {
		if call.Ref.Generation > 0 {
			o.calls = append(o.calls, call)
			o.listed[call.Ref.Stage+call.Ref.Key][call.Cell] = true
		}
	}
	return o
}

// of returns the run's own result that is equal to the one ref names, that of the cell if there are several ("" prefers none); ref itself
// when it is the run's and the cell has no other, or when the run has none such.
func (o *ownResults) of(ctx context.Context, ref artifact.Ref, cell string) artifact.Ref {
	if o == nil {
		return ref
	}
	cells, listed := o.listed[ref.Stage+ref.Key]
	if listed && (cell == "" || cells[cell]) {
		return ref
	}
	digest := o.digest(ctx, ref)
	if digest == "" {
		return ref
	}
	found := ref
	for _, call := range o.calls {
		if call.Stage != ref.Stage || o.digest(ctx, call.Ref) != digest {
			continue
		}
		if call.Cell == cell {
			return call.Ref
		}
		if found == ref && !listed {
			found = call.Ref
		}
	}
	return found
}

// users are the cells that use a result, in order; "" alone when none is known to.
func (o *ownResults) users(ref artifact.Ref) []string {
	if o == nil || len(o.listed[ref.Stage+ref.Key]) == 0 {
		return []string{""}
	}
	return slices.Sorted(maps.Keys(o.listed[ref.Stage+ref.Key]))
}

// digest is a result's, "" for one that cannot be read.
func (o *ownResults) digest(ctx context.Context, ref artifact.Ref) string {
	d, ok := o.known[ref]
	if !ok {
		if m, err := o.store.Current(ctx, ref); err == nil {
			d = m.Digest()
		}
		o.known[ref] = d
	}
	return d
}

// inputs are a manifest's, the run's own where it has them.
func (o *ownResults) inputs(ctx context.Context, m *artifact.Manifest, cell string) map[string]artifact.Ref {
	if o == nil || len(m.Inputs) == 0 {
		return m.Inputs
	}
	in := maps.Clone(m.Inputs)
	for role, ref := range in {
		in[role] = o.of(ctx, ref, cell)
	}
	return in
}

// manifest is m with the run's own inputs.
func (o *ownResults) manifest(ctx context.Context, m *artifact.Manifest, cell string) *artifact.Manifest {
	in := o.inputs(ctx, m, cell)
	if maps.Equal(in, m.Inputs) {
		return m
	}
	own := *m
	own.Inputs = in
	return &own
}

// tables is a call for tables with the run's own results in place of those it names.
func (o *ownResults) tables(ctx context.Context, call Call) (Call, error) {
	p, err := decodeParams[TablesParams](call.Params)
	if err != nil || o == nil {
		return call, err
	}
	in := maps.Clone(call.Inputs)
	for role, ref := range in {
		in[role] = o.of(ctx, ref, "")
	}
	for _, c := range p.Cells {
		j := &job{call: call}
		for _, role := range j.cellRoles(c) {
			if ref, ok := call.Inputs[role]; ok {
				in[role] = o.of(ctx, ref, c.Name)
			}
		}
	}
	call.Inputs = in
	return call, nil
}

// differ tells whether any of the results that a study names is another run's where this one has its own, or another cell's.
func (o *ownResults) differ(ctx context.Context, uses []reports.StageUse) bool {
	if o == nil {
		return false
	}
	all := map[string]bool{}
	for _, call := range o.calls {
		all[call.Cell] = true
	}
	return slices.ContainsFunc(uses, func(u reports.StageUse) bool {
		ref, cells := u.Manifest.Ref(), u.Cells
		if len(cells) == 0 {
			cells = slices.Sorted(maps.Keys(all))
		}
		return slices.ContainsFunc(cells, func(cell string) bool { return o.of(ctx, ref, cell) != ref })
	})
}
