package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// instructions asks the teacher about the documents, training and held-out ones, if there are any.
func (s *stages) instructions(ctx workflow.Context, cell Cell, documents, tokenizer artifact.Ref) (artifact.Ref, error) {
	if documents == none {
		return none, nil
	}
	p := datasets.InstructionsStageParams{InstructionsParams: cell.Spec.Instructions}
	if e, ok := cell.Spec.Endpoints[p.Teacher]; ok {
		p.Endpoint = &e
	}
	return s.do(ctx, cell, "instructions", "", p, inputs{"documents": documents, "tokenizer": tokenizer})
}

// tokens renders the training instructions with the chat template and labels the answers.
func (s *stages) tokens(ctx workflow.Context, cell Cell, instructions, tokenizer artifact.Ref) (artifact.Ref, error) {
	return s.do(ctx, cell, "tokens", "instructions", datasets.TokensStageParams{TokensParams: cell.Spec.Tokens},
		given(inputs{"instructions": instructions, "tokenizer": tokenizer}))
}

// batches plans the optimizer steps.
func (s *stages) batches(ctx workflow.Context, cell Cell, tokens artifact.Ref) (artifact.Ref, error) {
	return s.do(ctx, cell, "batches", "instructions", cell.Spec.Batches, inputs{"tokens": tokens})
}
