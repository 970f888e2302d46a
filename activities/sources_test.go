package activities

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/documents"
)

func TestAnOutageWhileInputIsReadIsTriedAgain(t *testing.T) {
	away := &documents.ReadError{File: "a.jsonl", Err: &fs.PathError{Op: "read", Path: "a.jsonl", Err: artifact.ErrUnavailable}}
	damaged := &documents.InputError{File: "a.jsonl", Line: 3, Reason: "is no JSON object"}
	for name, tt := range map[string]struct {
		err  error
		kind string
	}{
		"documents, the store away":     {inputError(fmt.Errorf("documents: source s: %w", away)), StoreUnavailable},
		"a mixture, the store away":     {mixError(datasets.MixSource{Name: "m"}, away), StoreUnavailable},
		"documents, a failing disk":     {inputError(&documents.ReadError{File: "a", Err: errors.New("input/output error")}), Unexpected},
		"documents, a line that is bad": {inputError(fmt.Errorf("documents: source s: %w", damaged)), BadData},
		"a mixture, a line that is bad": {mixError(datasets.MixSource{Name: "m"}, damaged), BadData},
	} {
		t.Run(name, func(t *testing.T) { wantType(t, boundary(t.Context(), "documents", tt.err), tt.kind, "a") })
	}
}
