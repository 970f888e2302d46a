package workflows

import (
	"maps"

	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// predictions asks the model about the held-out instructions.
func (s *stages) predictions(ctx workflow.Context, cell Cell, checkpoint, instructions artifact.Ref) (artifact.Ref, error) {
	p := datasets.PredictionsStageParams{PredictionsParams: cell.Spec.Predictions, Template: cell.Spec.Tokens.Template, MaxLength: cell.Spec.Tokens.MaxLength}
	return s.do(ctx, cell, "predictions", "", p, inputs{"checkpoint": checkpoint, "instructions": instructions})
}

func (s *stages) scores(ctx workflow.Context, cell Cell, predictions artifact.Ref) (artifact.Ref, error) {
	return s.do(ctx, cell, "scores", "", cell.Spec.Scores, inputs{"predictions": predictions})
}

// tables makes the study's tables from the results of all its cells.
func (s *stages) tables(ctx workflow.Context, spec Spec, cells []Cell, scored map[string]Scored, failed map[string]string) (artifact.Ref, error) {
	p := activities.TablesParams{Params: spec.Tables, Name: spec.Name, Title: spec.Title, Description: spec.Description, Buckets: spec.Scores.Buckets, Missing: maps.Clone(failed)}
	if spec.Study != nil {
		for _, m := range spec.Study.Methods {
			p.Methods = append(p.Methods, activities.TablesMethod{Name: m.Name, Label: m.Label, Published: m.Published})
		}
	}
	in := inputs{}
	for _, c := range cells {
		done, ok := scored[c.Name]
		if !ok {
			continue
		}
		p.Cells = append(p.Cells, activities.TablesCell{Name: c.Name, Method: c.Method, Seed: c.Seed, Model: c.Spec.modelName(), Loss: c.Spec.Train.Loss})
		in["documents"], in["instructions"], in["tokens"] = done.Documents, done.Instructions, done.Tokens
		in["batches/"+c.Name], in["checkpoint/"+c.Name], in["scores/"+c.Name] = done.Batches, done.Checkpoint, done.Scores
		benchmarkInputs(c.Name, done.Benchmarks, in)
	}
	whole := Cell{Name: spec.Name, Spec: spec}
	return s.do(ctx, whole, "tables", "", p, in)
}
