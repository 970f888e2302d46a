package workflows

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/reports/paper"
)

// predictions asks the model about the held-out instructions, if there are any.
func (s *stages) predictions(ctx workflow.Context, cell Cell, checkpoint, instructions artifact.Ref) (artifact.Ref, error) {
	if instructions == none {
		return none, nil
	}
	p := datasets.PredictionsStageParams{PredictionsParams: cell.Spec.Predictions, Template: cell.Spec.Tokens.Template, MaxLength: cell.Spec.Tokens.MaxLength}
	return s.do(ctx, cell, "predictions", "", p, inputs{"checkpoint": checkpoint, "instructions": instructions})
}

func (s *stages) scores(ctx workflow.Context, cell Cell, predictions artifact.Ref) (artifact.Ref, error) {
	if predictions == none {
		return none, nil
	}
	return s.do(ctx, cell, "scores", "", cell.Spec.Scores, inputs{"predictions": predictions})
}

// tables makes the study's tables from the results of all its cells.
func (s *stages) tables(ctx workflow.Context, spec Spec, cells []Cell, scored map[string]Scored, failed map[string]string) (artifact.Ref, error) {
	p, in := tablesOf(spec, cells, scored, failed)
	return s.do(ctx, Cell{Name: spec.Name, Spec: spec}, "tables", "", p, in)
}

// tablesOf is what the tables stage is asked for.
func tablesOf(spec Spec, cells []Cell, scored map[string]Scored, failed map[string]string) (activities.TablesParams, inputs) {
	p := activities.TablesParams{Params: spec.Tables, Name: spec.Name, Title: spec.Title, Description: spec.Description, Buckets: spec.Scores.Buckets, Missing: maps.Clone(failed)}
	if spec.Study != nil {
		for _, m := range spec.Study.Methods {
			p.Methods = append(p.Methods, activities.TablesMethod{Name: m.Name, Label: m.Label, Published: m.Published, Dataset: m.Dataset})
		}
	}
	if spec.Tables.Kind == reports.KindPaper {
		p.Methods = published(p.Methods, cells, spec.Tables.Dataset)
	}
	in := inputs{}
	for _, c := range cells {
		done, ok := scored[c.Name]
		if !ok {
			continue
		}
		p.Cells = append(p.Cells, activities.TablesCell{Name: c.Name, Method: c.Method, Seed: c.Seed, Model: c.Spec.modelName(), Loss: c.Spec.Train.Loss, NoDocuments: done.Documents == none})
		// The data are the first cell's. A cell trained on others brings its own.
		data := given(inputs{"documents": done.Documents, "instructions": done.Instructions, "tokens": done.Tokens})
		for _, role := range sortedKeys(data) {
			if first, ok := in[role]; !ok {
				in[role] = data[role]
			} else if first != data[role] {
				in[activities.DataRole(role, c.Name)] = data[role]
			}
		}
		in["batches/"+c.Name], in["checkpoint/"+c.Name] = done.Batches, done.Checkpoint
		if done.Scores != none {
			in["scores/"+c.Name] = done.Scores
		}
		benchmarkInputs(c.Name, done.Benchmarks, in)
	}
	return p, in
}

// published fills in which of the paper's rows methods stand beside: that of how they batch and weight, unless the file names one. Packs
// with every answer weighted alike are the paper's own recipe, whatever the method is called. Of several methods that could, which differ in
// something else, none does.
func published(methods []activities.TablesMethod, cells []Cell, dataset string) []activities.TablesMethod {
	claims := map[publishedPlace][]int{}
	var places []publishedPlace // in the order of the cells
	for _, c := range cells {
		i := slices.IndexFunc(methods, func(m activities.TablesMethod) bool { return m.Name == c.Method })
		if i < 0 {
			i = len(methods)
			methods = append(methods, activities.TablesMethod{Name: c.Method})
		}
		row := cmp.Or(methods[i].Published, publishedRow(c.Spec.Batches.Method, c.Spec.Train.Loss))
		place := publishedPlace{row, c.Spec.modelName(), cmp.Or(methods[i].Dataset, dataset)}
		if claims[place] == nil {
			places = append(places, place)
		}
		if !slices.Contains(claims[place], i) {
			claims[place] = append(claims[place], i)
		}
	}
	for _, place := range places {
		if by := claims[place]; len(by) == 1 {
			methods[by[0]].Published = place.row
		}
	}
	return methods
}

// publishedPlace is a row of the paper's tables: a method of its, a model, a data set.
type publishedPlace struct{ row, model, dataset string }

// publishedRow is the paper's name for a way of batching and weighting, "" where it has none.
func publishedRow(method datasets.Method, loss datasets.Loss) string {
	switch {
	case method == datasets.MethodPacking && loss == datasets.LossPack:
		return paper.Packing
	case method == datasets.MethodPacking && loss == datasets.LossLongAlign:
		return paper.Weighting
	case method == datasets.MethodNaive && loss == datasets.LossLongAlign:
		return paper.Naive
	case method == datasets.MethodSorted && loss == datasets.LossLongAlign:
		return paper.Sorted
	}
	return ""
}

// RecordedTables is the call for a run's tables by its record alone: the results that it lists, whichever version of this program made
// them. Cells whose results it does not list are among the missing. It is for runs whose tables are lost, or were never made.
func RecordedTables(run *artifact.RunRecord) (activities.Call, error) {
	spec, err := RecordedSpec(run.Spec)
	if err != nil {
		return activities.Call{}, err
	}
	cells, err := spec.Cells()
	if err != nil {
		return activities.Call{}, err
	}
	scored, missing := map[string]Scored{}, map[string]string{}
	maps.Copy(missing, run.Failed)
	for _, c := range cells {
		found := Scored{Benchmarks: inputs{}}
		for _, call := range run.Stages {
			if call.Cell != c.Name || call.Ref.Generation == 0 {
				continue
			}
			switch call.Stage + "/" + call.Role {
			case "documents/":
				found.Documents = call.Ref
			case "instructions/":
				found.Instructions = call.Ref
			case "tokens/instructions":
				found.Tokens = call.Ref
			case "batches/instructions":
				found.Batches = call.Ref
			case "checkpoint/tuned":
				found.Checkpoint = call.Ref
			case "scores/":
				found.Scores = call.Ref
			default:
				if call.Stage == "scores" {
					found.Benchmarks[call.Role] = call.Ref
				}
			}
		}
		fromDocuments := found.Scores != none && found.Instructions != none && found.Documents != none
		switch {
		case missing[c.Name] != "":
		case found.Checkpoint == none || found.Batches == none || found.Tokens == none || c.Spec.hasDocuments() && !fromDocuments:
			missing[c.Name] = "the run's record lists no results of all its stages"
		default:
			scored[c.Name] = found
		}
	}
	if len(missing) == 0 {
		missing = nil
	}
	p, in := tablesOf(spec, cells, scored, missing)
	params, err := json.Marshal(p)
	return activities.Call{Stage: "tables", Params: params, Inputs: in}, err
}
