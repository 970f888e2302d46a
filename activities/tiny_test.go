package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// tiny runs stages on a store in memory, with a corpus of a few Go packages and a model of some thousand weights.
type tiny struct {
	*Activities
	t    *testing.T
	tap  *tap
	docs string // the corpus
}

func newTiny(t *testing.T) *tiny {
	t.Helper()
	tapped := &tap{Backend: artifact.NewMemory()}
	p := &tiny{t: t, tap: tapped, docs: filepath.Join(t.TempDir(), "corpus"), Activities: &Activities{
		Store: artifact.New(tapped, "mem://"+t.Name()), OpenDevice: openHost, Scratch: t.TempDir(),
	}}
	writeCorpus(t, p.docs)
	return p
}

// rehearse begins a rehearsal that ends with t.
func (p *tiny) rehearse(t *testing.T) *Rehearsal {
	t.Helper()
	r, done, err := p.Rehearse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// openHost opens the processor; the device "abacus" does not exist.
func openHost(_ context.Context, name string) (gpu.Device, error) {
	if name == "abacus" {
		return nil, errors.New(`device "abacus" is not known; use auto, host or cuda`)
	}
	return host.Open(host.Options{})
}

// tap is a backend whose puts can be watched and refused.
type tap struct {
	artifact.Backend
	mu  sync.Mutex
	put func(key string) error
}

func (b *tap) on(f func(key string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put = f
}

func (b *tap) Put(ctx context.Context, key string, r io.Reader, size int64, cond artifact.Condition) (string, error) {
	b.mu.Lock()
	f := b.put
	b.mu.Unlock()
	if f != nil {
		if err := f(key); err != nil {
			return "", err
		}
	}
	return b.Backend.Put(ctx, key, r, size, cond)
}

// writeCorpus writes ten Go packages with documented functions, always the same.
func writeCorpus(t *testing.T, dir string) {
	t.Helper()
	nouns := []string{"queue", "river", "clock", "garden", "ladder", "market", "window", "signal", "harbor", "engine"}
	for i, noun := range nouns {
		var b strings.Builder
		fmt.Fprintf(&b, "// Package %s keeps a %s.\npackage %s\n", noun, noun, noun)
		for j, verb := range []string{"Open", "Count", "Close"} {
			fmt.Fprintf(&b, "\n// %s%d makes the %s number %d ready, and returns how many of the %s are left over.\nfunc %s%d(%s int) int {\n\treturn %s*%d + %d\n}\n",
				verb, i, noun, i*7+j, nouns[(i+j+1)%10], verb, i, noun, noun, j+2, i)
		}
		path := filepath.Join(dir, noun, noun+".go")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Parameters of the tiny pipeline.
func (p *tiny) documentsParams() datasets.DocumentsParams {
	return datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Name: "packages", Path: p.docs, Format: datasets.FormatGo}}, HeldOut: 0.4, NearDuplicates: -1, Seed: 3}
}

var (
	tokenizerParams = datasets.TokenizerParams{VocabSize: 300}
	teacherParams   = datasets.InstructionsParams{Seed: 3}
	tokensParams    = datasets.TokensStageParams{TokensParams: datasets.TokensParams{MaxLength: 1024}}
	batchesParams   = datasets.BatchesParams{Method: datasets.MethodPacking, MaxLength: 1024, BatchSize: 1, Epochs: 3, Seed: 1}
	modelParams     = datasets.ModelParams{HiddenSize: 16, IntermediateSize: 24, NumHiddenLayers: 1, NumAttentionHeads: 2, MaxPositionEmbeddings: 1024, InitSeed: 1}
	trainParams     = datasets.TrainParams{LearningRate: 1e-2, CheckpointEvery: 2, Device: "host"}
)

// call resolves a call, so that Run can be asked for it.
func (p *tiny) call(stage string, params any, inputs map[string]artifact.Ref) Call {
	p.t.Helper()
	raw, err := json.Marshal(params)
	if err != nil {
		p.t.Fatal(err)
	}
	c := Call{Stage: stage, Params: raw, Inputs: inputs}
	r, err := p.Resolve(p.t.Context(), c)
	if err != nil {
		p.t.Fatal(err)
	}
	c.Key = r.Key
	return c
}

func (p *tiny) make(stage string, params any, inputs map[string]artifact.Ref) artifact.Ref {
	p.t.Helper()
	ref, err := p.Run(p.t.Context(), p.call(stage, params, inputs))
	if err != nil {
		p.t.Fatal(err)
	}
	return ref
}

// made holds the results up to the plans, which every training test begins with.
type made struct{ documents, tokenizer, instructions, tokens, batches, base artifact.Ref }

func (p *tiny) upToBatches() made {
	p.t.Helper()
	var m made
	m.documents = p.make("documents", p.documentsParams(), nil)
	m.tokenizer = p.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": m.documents})
	m.instructions = p.make("instructions", teacherParams, map[string]artifact.Ref{"documents": m.documents, "tokenizer": m.tokenizer})
	m.tokens = p.make("tokens", tokensParams, map[string]artifact.Ref{"instructions": m.instructions, "tokenizer": m.tokenizer})
	m.batches = p.make("batches", batchesParams, map[string]artifact.Ref{"tokens": m.tokens})
	m.base = p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &modelParams}, map[string]artifact.Ref{"tokenizer": m.tokenizer})
	return m
}

// training is the call that tunes the base model.
func (p *tiny) training(m made, change func(*datasets.TrainParams)) Call {
	p.t.Helper()
	t := trainParams
	if change != nil {
		change(&t)
	}
	return p.call("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Train: &t},
		map[string]artifact.Ref{"base": m.base, "tokenizer": m.tokenizer, "tokens": m.tokens, "batches": m.batches})
}

func (p *tiny) manifest(ref artifact.Ref) *artifact.Manifest {
	p.t.Helper()
	m, err := p.Store.Manifest(p.t.Context(), ref)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// output is the digest of one output.
func (p *tiny) output(ref artifact.Ref, name string) artifact.Blob {
	p.t.Helper()
	o, ok := p.manifest(ref).Output(name)
	if !ok {
		p.t.Fatalf("%s has no output %s", ref, name)
	}
	return o.Blob
}

// wantType checks the type of an activity's error.
func wantType(t *testing.T, err error, kind string, words ...string) {
	t.Helper()
	var app *temporal.ApplicationError
	if !errors.As(err, &app) {
		t.Fatalf("got %v, want a failure of type %s", err, kind)
	}
	if app.Type() != kind {
		t.Errorf("got %s: %s, want type %s", app.Type(), app.Message(), kind)
	}
	for _, w := range words {
		if !strings.Contains(app.Message(), w) {
			t.Errorf("the message lacks %q: %s", w, app.Message())
		}
	}
}
