package activities

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// RunID names a run: the workflow ID is the same each time the same spec is started, the run ID is not.
type RunID struct {
	WorkflowID string `json:"workflow_id"`
	RunID      string `json:"run_id"`
}

// Use is one manifest that a cell of the run used.
type Use struct {
	Cell   string       `json:"cell"`
	Role   string       `json:"role,omitempty"` // where a cell uses a stage more than once
	Ref    artifact.Ref `json:"ref"`
	Reused bool         `json:"reused"` // made by an earlier run or another one
}

// RunUpdate adds to a run's record. Zero fields leave what is there.
type RunUpdate struct {
	ID     RunID              `json:"id"`
	Name   string             `json:"name,omitempty"`
	Spec   json.RawMessage    `json:"spec,omitempty"`
	Cells  []string           `json:"cells,omitempty"`
	Status artifact.Status    `json:"status,omitempty"`
	Error  *artifact.RunError `json:"error,omitempty"`
	Failed map[string]string  `json:"failed,omitempty"` // cell → why
	Uses   []Use              `json:"uses,omitempty"`
	Tables *artifact.Ref      `json:"tables,omitempty"`
	// Pointers are those of trainings that were begun and have no result, told when the run ends.
	Pointers []string  `json:"pointers,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// RecordRun applies an update to the run's record in the store. Applying one twice changes nothing.
func (a *Activities) RecordRun(ctx context.Context, u RunUpdate) error {
	return boundary(ctx, "run record", a.recordRun(ctx, u))
}

func (a *Activities) recordRun(ctx context.Context, u RunUpdate) error {
	r, err := a.Store.Run(ctx, u.ID.WorkflowID)
	var corrupt *artifact.CorruptError
	earlier := errors.As(err, &corrupt) && !strings.HasSuffix(corrupt.Object, "/"+u.ID.RunID+".json")
	if earlier || errors.Is(err, artifact.ErrNotFound) || (err == nil && r.RunID != u.ID.RunID) {
		r = &artifact.RunRecord{ID: u.ID.WorkflowID, RunID: u.ID.RunID, Kind: "experiment", Status: artifact.Running, Code: artifact.CurrentCode()}
	} else if err != nil {
		return err
	}
	r.Sequence++
	if u.Name != "" {
		r.Name = u.Name
	}
	if u.Spec != nil {
		r.Spec = u.Spec
	}
	if u.Cells != nil {
		r.Cells = u.Cells
	}
	if len(r.Cells) > 1 {
		r.Kind = "study"
	}
	if u.Status != "" {
		r.Status = u.Status
	}
	if !u.Started.IsZero() {
		r.Started = u.Started
	}
	r.Finished, r.Error, r.Pointers = u.Finished, u.Error, u.Pointers
	if u.Failed != nil {
		r.Failed = maps.Clone(u.Failed)
	}
	if u.Tables != nil {
		r.Tables = u.Tables
	}
	for _, use := range u.Uses {
		call := artifact.StageCall{Cell: use.Cell, Role: use.Role, Stage: use.Ref.Stage, Ref: use.Ref, Reused: use.Reused}
		if !slices.Contains(r.Stages, call) {
			r.Stages = append(r.Stages, call)
		}
	}
	return a.Store.PutRun(ctx, r)
}
