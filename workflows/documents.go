package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

type inputs = map[string]artifact.Ref

// none stands for a result that an experiment does without.
var none artifact.Ref

// given are the inputs that there are.
func given(in inputs) inputs {
	out := inputs{}
	for _, role := range sortedKeys(in) {
		if in[role] != none {
			out[role] = in[role]
		}
	}
	return out
}

// corpus makes the documents and the tokenizer. A given tokenizer counts the documents' tokens; one
// that is trained here needs the documents first, and their bounds are estimates. An experiment on conversations alone has no documents.
func (s *stages) corpus(ctx workflow.Context, cell Cell) (documents, tokenizer artifact.Ref, err error) {
	e := cell.Spec
	if e.Tokenizer.Path != "" {
		if tokenizer, err = s.tokenizer(ctx, cell, e.Tokenizer, nil); err != nil {
			return documents, tokenizer, err
		}
		if !e.hasDocuments() {
			return none, tokenizer, nil
		}
		documents, err = s.documents(ctx, cell, e.Documents, inputs{"tokenizer": tokenizer})
		return documents, tokenizer, err
	}
	if documents, err = s.documents(ctx, cell, e.Documents, nil); err != nil {
		return documents, tokenizer, err
	}
	tokenizer, err = s.tokenizer(ctx, cell, e.Tokenizer, inputs{"documents": documents})
	return documents, tokenizer, err
}

func (s *stages) documents(ctx workflow.Context, cell Cell, p datasets.DocumentsParams, in inputs) (artifact.Ref, error) {
	return s.do(ctx, cell, "documents", "", p, in)
}

func (s *stages) tokenizer(ctx workflow.Context, cell Cell, p datasets.TokenizerParams, in inputs) (artifact.Ref, error) {
	return s.do(ctx, cell, "tokenizer", "", p, in)
}
