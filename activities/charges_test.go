package activities

import (
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/reports"
)

// Manifests leave out paths: what a model cost, and whether it costs to make it again, must be told without.
func TestAnImportedModelIsAccountedForWithoutItsPath(t *testing.T) {
	p := newTiny(t)
	j := &job{a: p.Activities, call: Call{Inputs: refs{"checkpoint": p.upToBatches().base}}, dir: t.TempDir()}
	dir, err := j.fetch(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	imported := p.manifest(p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &datasets.ModelParams{Path: dir}}, nil))
	charges, err := j.charges(t.Context(), []reports.StageUse{{Manifest: imported}})
	if err != nil || len(charges) != 1 || charges[0].What != "importing a model" {
		t.Errorf("%+v, %v", charges, err)
	}
	if cost := Cost(imported.Stage, imported.Params); cost != "" {
		t.Errorf("importing a model is said to take %s", cost)
	}
}
