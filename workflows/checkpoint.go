package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// base is the model that instruction tuning starts from: imported, made anew, or pre-trained on the documents.
func (s *stages) base(ctx workflow.Context, cell Cell, documents, tokenizer artifact.Ref) (artifact.Ref, error) {
	e := cell.Spec
	if e.Pretrain == nil {
		p := datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &e.Model}
		return s.do(ctx, cell, "checkpoint", "base", p, inputs{"tokenizer": tokenizer})
	}
	t := datasets.TokensStageParams{
		TokensParams:  datasets.TokensParams{Template: "plain", MaxLength: e.Pretrain.Tokens.MaxLength}.Defaults(),
		FromDocuments: true, MaxTokens: e.Pretrain.Tokens.MaxTokens,
	}
	tokens, err := s.do(ctx, cell, "tokens", "pretrain", t, inputs{"documents": documents, "tokenizer": tokenizer})
	if err != nil {
		return artifact.Ref{}, err
	}
	batches, err := s.do(ctx, cell, "batches", "pretrain", e.Pretrain.Batches, inputs{"tokens": tokens})
	if err != nil {
		return artifact.Ref{}, err
	}
	p := datasets.CheckpointParams{Objective: datasets.ObjectivePretrain, Model: &e.Model, Train: &e.Pretrain.Train}
	return s.do(ctx, cell, "checkpoint", "base", p, inputs{"tokenizer": tokenizer, "tokens": tokens, "batches": batches})
}

// checkpoint tunes the base model on the planned batches, watched on held-out instructions if asked for.
func (s *stages) checkpoint(ctx workflow.Context, cell Cell, base, tokenizer, tokens, batches, instructions artifact.Ref) (artifact.Ref, error) {
	p := datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Train: &cell.Spec.Train}
	in := inputs{"base": base, "tokenizer": tokenizer, "tokens": tokens, "batches": batches}
	if p.Train.EvalEvery > 0 {
		p.Template, p.MaxLength = cell.Spec.Tokens.Template, cell.Spec.Tokens.MaxLength
		in["held_out"] = instructions
	}
	return s.do(ctx, cell, "checkpoint", "tuned", p, in)
}
