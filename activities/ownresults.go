package activities

import (
	"context"
	"maps"
	"slices"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// ownResults say which of a run's results stand where its manifests name another run's. A result that was found in the store names as
// inputs what the run that made it gave it; this run gave it equal ones, which may have been made otherwise: by another model, or judged
// by another judge. What is told of a run is told of its own. nil changes nothing.
type ownResults struct {
	store  *artifact.Store
	calls  []artifact.StageCall
	listed map[string]bool         // by stage and key: another generation is the same result
	known  map[artifact.Ref]string // digests
}

func newOwnResults(store *artifact.Store, run *artifact.RunRecord) *ownResults {
	if run == nil {
		return nil
	}
	o := &ownResults{store: store, listed: map[string]bool{}, known: map[artifact.Ref]string{}}
	for _, call := range run.Stages {
		if call.Ref.Generation > 0 {
			o.calls = append(o.calls, call)
		}
	}
	for _, ref := range run.Refs() {
		o.listed[ref.Stage+ref.Key] = true
	}
	return o
}

// of returns the run's own result that is equal to the one ref names, that of the cell if there are several ("" prefers none); ref itself
// when it is the run's, or when the run has none such.
func (o *ownResults) of(ctx context.Context, ref artifact.Ref, cell string) artifact.Ref {
	if o == nil || o.listed[ref.Stage+ref.Key] {
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
		if found == ref {
			found = call.Ref
		}
	}
	return found
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

// differ tells whether any of the results that a study names is another run's where this one has its own.
func (o *ownResults) differ(ctx context.Context, uses []reports.StageUse) bool {
	return o != nil && slices.ContainsFunc(uses, func(u reports.StageUse) bool {
		cell := ""
		if len(u.Cells) > 0 {
			cell = u.Cells[0]
		}
		ref := u.Manifest.Ref()
		return o.of(ctx, ref, cell) != ref
	})
}
