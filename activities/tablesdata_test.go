package activities

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// The paper's Table 2 compares training data, so that a study's methods may have instructions and tokens of their own.
func TestCellsTrainedOnOtherDataAreCountedByThem(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	in := map[string]artifact.Ref{"documents": m.documents, "instructions": m.instructions, "tokens": m.tokens}
	params := TablesParams{Params: reports.Params{Kind: reports.KindPaper, Dataset: "LongAlign-10k"}, Name: "data", Buckets: []int{8, 32}, Methods: []TablesMethod{
		{Name: "all", Published: "packing+loss weighting"}, {Name: "few", Published: "packing+loss weighting", Dataset: "LongAlign-5k"}}}
	cell := func(method string, m made) TablesCell {
		c := TablesCell{Name: method + "/seed=1", Method: method, Seed: 1, Model: "ChatGLM3-6B-64k", Loss: datasets.LossLongAlign}
		tuned, err := p.Run(t.Context(), p.training(m, nil))
		if err != nil {
			t.Fatal(err)
		}
		predictions := p.make("predictions", datasets.PredictionsStageParams{Template: "longalign", MaxLength: 1024, PredictionsParams: datasets.PredictionsParams{Device: "host", MaxInstances: 2, Generate: 1}},
			map[string]artifact.Ref{"checkpoint": tuned, "instructions": m.instructions})
		in["batches/"+c.Name], in["checkpoint/"+c.Name] = m.batches, tuned
		in["scores/"+c.Name] = p.make("scores", datasets.ScoresParams{}, map[string]artifact.Ref{"predictions": predictions})
		return c
	}
	params.Cells = append(params.Cells, cell("all", m))
	few := m
	fewer := tokensParams
	fewer.Instances = 4
	few.tokens = p.make("tokens", fewer, map[string]artifact.Ref{"instructions": m.instructions, "tokenizer": m.tokenizer})
	few.batches = p.make("batches", batchesParams, map[string]artifact.Ref{"tokens": few.tokens})
	params.Cells = append(params.Cells, cell("few", few))
	in[DataRole("tokens", "few/seed=1")] = few.tokens

	tables := p.make("tables", params, in)
	s, err := ReadStudy(t.Context(), p.Store, tables, nil)
	if err != nil {
		t.Fatal(err)
	}
	sequences := map[string]int{}
	for _, c := range s.Cells {
		for _, share := range c.LossShare {
			sequences[c.Method+" on "+c.Dataset] += share.Sequences
		}
	}
	all := len(s.Data.InputLengths)
	if all <= 4 {
		t.Fatalf("%d training sequences are too few to tell data apart", all)
	}
	if d := cmp.Diff(map[string]int{"all on LongAlign-10k": batchesParams.Epochs * all, "few on LongAlign-5k": batchesParams.Epochs * 4}, sequences); d != "" {
		t.Errorf("sequences that cells trained on (-want +got):\n%s", d)
	}
	if len(s.OtherData) != 1 || len(s.OtherData[0].InputLengths) != 4 || s.OtherData[0].Name != "LongAlign-5k" || s.Data.Name != "all" {
		t.Errorf("the study's data: %q, others %+v", s.Data.Name, s.OtherData)
	}
	table, err := reports.Find(reports.Tables(s), "data")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Rows {
		if row.Section == "ours alone" {
			t.Errorf("a row beside no published one: %s", row.Cells[0].Text)
		}
	}
}

func TestInstructionsOfEditedPromptsAreMadeAgainByTheRunsPrompts(t *testing.T) {
	p := newTiny(t)
	documents := p.make("documents", p.documentsParams(), nil)
	tokenizer := p.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": documents})
	edited := teacherParams
	edited.Prompts = map[string]string{"propose/summary/en": "Ask for a summary, five questions, numbered, of this:\n{{.Document}}"}
	ref := p.make("instructions", edited, map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer})
	run := &artifact.RunRecord{ID: "edited", Status: artifact.Completed,
		Spec:   mustMarshal(map[string]any{"documents": p.documentsParams(), "tokenizer": tokenizerParams, "instructions": edited}),
		Stages: []artifact.StageCall{{Stage: "documents", Ref: documents}, {Stage: "tokenizer", Ref: tokenizer}, {Stage: "instructions", Ref: ref}}}
	if v := p.verify(run, VerifyOptions{Derived: true}); v.Recomputed != 3 || len(v.Findings)+len(v.Unchecked) > 0 {
		t.Errorf("with the run's prompts: %+v", v)
	}
	run.Spec = mustMarshal(map[string]any{"documents": p.documentsParams(), "tokenizer": tokenizerParams})
	if v := p.verify(run, VerifyOptions{Derived: true}); v.Recomputed != 2 || len(v.Unchecked) != 1 {
		t.Errorf("without them the instructions cannot be checked: %+v", v)
	}
}
