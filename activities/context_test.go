package activities

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/llama"
)

// shortModel writes a model whose context is shorter than the tiny corpus' sequences, and returns its directory.
func (p *tiny) shortModel(m made) string {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "short")
	if err := os.Mkdir(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	params := modelParams
	params.MaxPositionEmbeddings = 16
	ref := p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &params}, map[string]artifact.Ref{"tokenizer": m.tokenizer})
	for _, o := range p.manifest(ref).Outputs {
		if err := p.Store.FetchBlob(p.t.Context(), o.Blob, filepath.Join(dir, o.Name)); err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}

func TestSequencesLongerThanTheContextAreRefusedBeforeTheFirstStep(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	m.base = p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &datasets.ModelParams{Path: p.shortModel(m)}}, map[string]artifact.Ref{"tokenizer": m.tokenizer})
	_, err := p.Run(t.Context(), p.training(m, nil))
	wantType(t, err, BadConfig, "the model's context is 16: lower tokens.max_length, or extend the context by model.rope_theta_scale")
}

func TestAModelIsTrainedBeyondItsContextWhereThatIsExtended(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	extended := &datasets.ModelParams{Path: p.shortModel(m), RopeThetaScale: 200, MaxPositionEmbeddings: 1024}
	m.base = p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: extended}, map[string]artifact.Ref{"tokenizer": m.tokenizer})
	tuned, err := p.Run(t.Context(), p.training(m, nil))
	if err != nil {
		t.Fatal(err)
	}
	data, err := p.Store.ReadBlob(t.Context(), p.output(tuned, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := llama.ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if c.RopeTheta != 2e6 || c.MaxPositions != 1024 {
		t.Errorf("the tuned model has a base of %v and a context of %d", c.RopeTheta, c.MaxPositions)
	}
}

// A teacher is paid before there are batches, so a rehearsal must know from their parameters alone what would not fit.
func TestARehearsalKnowsBeforeThereAreBatchesThatTheyAreTooLong(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	short := &datasets.ModelParams{Path: p.shortModel(m)}
	for name, tt := range map[string]struct {
		maxLength int
		want      string
	}{
		"as long as the context": {16, ""},
		"longer":                 {17, "sequences have up to 17 tokens, the model's context is 16"},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.rehearse(t)
			make := func(stage string, params any, inputs map[string]artifact.Ref) artifact.Ref {
				raw, err := json.Marshal(params)
				if err != nil {
					t.Fatal(err)
				}
				call := Call{Stage: stage, Params: raw, Inputs: inputs}
				found, err := r.Resolve(t.Context(), call)
				if err != nil {
					t.Fatal(err)
				}
				call.Key = found.Key
				ref, err := r.Make(t.Context(), call)
				if err != nil && stage != "checkpoint" {
					t.Fatal(err)
				}
				return ref
			}
			paid := map[string]any{"teacher": "t", "endpoint": datasets.EndpointParams{Kind: "openai", BaseURL: "http://127.0.0.1:1/v1", Model: "t"}}
			instructions := make("instructions", paid, map[string]artifact.Ref{"documents": m.documents, "tokenizer": m.tokenizer})
			tokens := make("tokens", tokensParams, map[string]artifact.Ref{"instructions": instructions, "tokenizer": m.tokenizer})
			batches := make("batches", datasets.BatchesParams{MaxLength: tt.maxLength}, map[string]artifact.Ref{"tokens": tokens})
			make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Model: short, Train: &trainParams},
				map[string]artifact.Ref{"tokenizer": m.tokenizer, "tokens": tokens, "batches": batches})
			all := r.Foreseen()
			f := all[len(all)-1]
			if f.Stage != "checkpoint" || (f.Problem == "") != (tt.want == "") || !strings.Contains(f.Problem, tt.want) {
				t.Fatalf("%+v, want %q", f, tt.want)
			}
			if tt.want == "" && (f.Forecast.Memory == nil || f.Forecast.Memory.Activations == 0) {
				t.Errorf("no memory is planned for: %+v", f.Forecast)
			}
		})
	}
}
