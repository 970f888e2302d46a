package activities

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/instructions"
	"github.com/longalign/longalign-go/reports"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestActionKeys pins what each stage's key is made of. A difference means that nothing made before is found again:
// raise the stage's version when its results differ, and give a new parameter omitempty when they do not.
func TestActionKeys(t *testing.T) {
	p := newTiny(t)
	// Inputs with digests of their own; what is in them does not matter to a key.
	input := func(stage string) artifact.Ref {
		m, err := artifact.NewManifest(artifact.Action{Stage: stage, StageVersion: 1, Params: struct{}{}})
		if err != nil {
			t.Fatal(err)
		}
		blob, err := p.Store.PutBlob(t.Context(), strings.NewReader("a "+stage))
		if err != nil {
			t.Fatal(err)
		}
		m.Outputs = []artifact.Output{{Name: "file", Blob: blob}}
		m, err = p.Store.PutManifest(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return m.Ref()
	}
	in := func(stages ...string) map[string]artifact.Ref {
		refs := map[string]artifact.Ref{}
		for _, s := range stages {
			refs[s] = input(s)
		}
		return refs
	}
	train := trainParams
	calls := []struct {
		stage  string
		params any
		inputs map[string]artifact.Ref
		class  string
	}{
		{"documents", p.documentsParams(), nil, ""},
		{"tokenizer", tokenizerParams, in("documents"), ""},
		{"instructions", teacherParams, in("documents", "tokenizer"), ""},
		{"tokens", tokensParams, in("instructions", "tokenizer"), ""},
		{"tokens", datasets.TokensStageParams{TokensParams: datasets.TokensParams{Template: "plain", MaxLength: 64}, FromDocuments: true, MaxTokens: 1000}, in("documents", "tokenizer"), ""},
		{"batches", batchesParams, in("tokens"), ""},
		{"batches", datasets.BatchesParams{Method: datasets.MethodNaive}, in("tokens"), ""},
		{"checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &modelParams}, in("tokenizer"), "host-avx2"},
		{"checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Train: &train}, in("base", "tokenizer", "tokens", "batches"), "host-avx2"},
		{"predictions", datasets.PredictionsStageParams{Template: "longalign", MaxLength: 1024}, in("checkpoint", "instructions"), "host-avx2"},
		{"scores", datasets.ScoresParams{}, in("predictions"), ""},
		{"tables", TablesParams{Params: reports.Params{Kind: reports.KindDemo}, Name: "tiny", Cells: []TablesCell{{Name: "a/seed=1", Method: "a", Seed: 1, Loss: datasets.LossLongAlign}}, Buckets: []int{8}}, in("scores"), ""},
	}
	var got bytes.Buffer
	for _, c := range calls {
		raw, err := json.Marshal(c.params)
		if err != nil {
			t.Fatal(err)
		}
		action, err := p.action(t.Context(), Call{Stage: c.stage, Params: raw, Inputs: c.inputs, Class: c.class})
		if err != nil {
			t.Fatal(err)
		}
		key, canonical, err := action.Key()
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(c.stage + " " + key + "\n")
		if err := json.Indent(&got, canonical, "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteString("\n\n")
		if strings.Contains(string(canonical), filepath.Dir(p.docs)) {
			t.Errorf("%s: the key depends on a path: %s", c.stage, canonical)
		}
	}
	golden := filepath.Join("testdata", "keys.golden")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v; write it with go test ./activities -run TestActionKeys -update", err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestOtherPromptsAreAnotherResult(t *testing.T) {
	digest := func(p datasets.InstructionsParams) string {
		t.Helper()
		raw, err := json.Marshal(datasets.InstructionsStageParams{InstructionsParams: p})
		if err != nil {
			t.Fatal(err)
		}
		described, err := describeInstructions(raw)
		if err != nil {
			t.Fatal(err)
		}
		return string(described)
	}
	builtin := digest(datasets.InstructionsParams{})
	if p, err := instructions.NewPrompts(nil); err != nil || !strings.Contains(builtin, p.Digest()) {
		t.Errorf("the built-in templates are not in %s, %v", builtin, err)
	}
	if digest(datasets.InstructionsParams{Prompts: map[string]string{"answer/en": "{{.Question}}"}}) == builtin {
		t.Error("an edited template does not change what is described")
	}
	raw, _ := json.Marshal(datasets.InstructionsStageParams{InstructionsParams: datasets.InstructionsParams{PromptsDir: "somewhere"}})
	if _, err := describeInstructions(raw); err == nil || !strings.Contains(err.Error(), "prompts_dir") {
		t.Errorf("a directory that nobody read: %v", err)
	}
}

func TestWhatDoesNotChangeAResultDoesNotChangeItsKey(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	key := p.training(m, nil).Key
	for name, tt := range map[string]struct {
		change func(*datasets.TrainParams)
		same   bool
	}{
		"the checkpoint interval":              {func(t *datasets.TrainParams) { t.CheckpointEvery = 77 }, true},
		"the device's name":                    {func(t *datasets.TrainParams) { t.Device = "auto" }, true},
		"recomputing activations":              {func(t *datasets.TrainParams) { t.Recompute = "layer" }, true},
		"keeping the optimizer in host memory": {func(t *datasets.TrainParams) { t.Offload = "optimizer" }, true},
		"moments of eight bits":                {func(t *datasets.TrainParams) { t.OptimizerStates = "8bit" }, false},
		"saying the default of the moments":    {func(t *datasets.TrainParams) { t.OptimizerStates = "f32" }, true},
		"a default that is written out":        {func(t *datasets.TrainParams) { t.Beta1 = 0.9 }, true},
		"the learning rate":                    {func(t *datasets.TrainParams) { t.LearningRate = 2e-2 }, false},
		"the loss":                             {func(t *datasets.TrainParams) { t.Loss = datasets.LossToken }, false},
		"the precision":                        {func(t *datasets.TrainParams) { t.Precision = "f64" }, false},
	} {
		if got := p.training(m, tt.change).Key; (got == key) != tt.same {
			t.Errorf("%s: the key is the same: %v, want %v", name, got == key, tt.same)
		}
	}
	call := p.training(m, nil)
	call.Label = "another cell"
	if r, err := p.Resolve(t.Context(), call); err != nil || r.Key != key {
		t.Errorf("the label changes the key: %v", err)
	}
	call.Class = "another device"
	if r, err := p.Resolve(t.Context(), call); err != nil || r.Key == key {
		t.Errorf("the device class does not change the key: %v", err)
	}
}

func TestDocumentsAreKeyedByContentNotByPath(t *testing.T) {
	p := newTiny(t)
	key := p.call("documents", p.documentsParams(), nil).Key
	moved := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.CopyFS(moved, os.DirFS(p.docs)); err != nil {
		t.Fatal(err)
	}
	p.docs = moved
	if got := p.call("documents", p.documentsParams(), nil).Key; got != key {
		t.Error("the same files in another directory have another key")
	}
	if err := os.WriteFile(filepath.Join(moved, "queue", "queue.go"), []byte("package queue\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.call("documents", p.documentsParams(), nil).Key; got == key {
		t.Error("another text in the same file has the same key")
	}
}

func TestFilesThatChangeUnderARunAreNoticed(t *testing.T) {
	p := newTiny(t)
	call := p.call("documents", p.documentsParams(), nil)
	if err := os.WriteFile(filepath.Join(p.docs, "queue", "queue.go"), []byte("package queue\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := p.Run(t.Context(), call)
	wantType(t, err, BadData, "changed while the run was under way")
}

func TestAStageAskedTwiceIsMadeOnce(t *testing.T) {
	p := newTiny(t)
	call := p.call("documents", p.documentsParams(), nil)
	first, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	writes := 0
	p.tap.on(func(string) error { writes++; return nil })
	again, err := p.Run(t.Context(), call)
	if err != nil || again != first || writes > 0 {
		t.Errorf("got %v, %v after %d writes, want %v", again, err, writes, first)
	}
	if r, err := p.Resolve(t.Context(), call); err != nil || !r.Hit || r.Ref != first {
		t.Errorf("resolved %+v, %v", r, err)
	}
}

func TestTheWholePipelineIsDeterministic(t *testing.T) {
	digests := func() map[string]string {
		p := newTiny(t)
		m := p.upToBatches()
		tuned, err := p.Run(t.Context(), p.training(m, nil))
		if err != nil {
			t.Fatal(err)
		}
		predictions := p.make("predictions", datasets.PredictionsStageParams{Template: "longalign", MaxLength: 1024, PredictionsParams: datasets.PredictionsParams{MaxNewTokens: 4, Generate: 2}},
			map[string]artifact.Ref{"checkpoint": tuned, "instructions": m.instructions})
		scores := p.make("scores", datasets.ScoresParams{}, map[string]artifact.Ref{"predictions": predictions})
		out := map[string]string{}
		for _, ref := range []artifact.Ref{m.documents, m.tokenizer, m.instructions, m.tokens, m.batches, tuned, predictions, scores} {
			out[ref.Stage] = ref.Key + " " + p.manifest(ref).Digest()
		}
		return out
	}
	if diff := cmp.Diff(digests(), digests()); diff != "" {
		t.Error(diff)
	}
}

func TestManifestsSayWhatTheyRestOn(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	tuned, err := p.Run(t.Context(), p.training(m, nil))
	if err != nil {
		t.Fatal(err)
	}
	manifest := p.manifest(tuned)
	if diff := cmp.Diff(map[string]artifact.Ref{"base": m.base, "tokenizer": m.tokenizer, "tokens": m.tokens, "batches": m.batches}, manifest.Inputs); diff != "" {
		t.Error(diff)
	}
	if manifest.Started.IsZero() || manifest.Finished.Before(manifest.Started) || manifest.Platform.CPU == "" || manifest.Counts["steps"] == 0 || manifest.Counts["parameters"] == 0 {
		t.Errorf("manifest %+v", manifest)
	}
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "timings.json"} {
		if _, ok := manifest.Output(name); !ok {
			t.Errorf("there is no output %s", name)
		}
	}
	if notes := p.manifest(m.instructions).Notes; !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "teacher") }) {
		t.Errorf("the instructions do not say who the teacher was: %q", notes)
	}
	for _, ref := range []artifact.Ref{m.tokens, m.batches} {
		var l datasets.Ledger
		if err := json.Unmarshal(p.manifest(ref).Ledger, &l); err != nil || l.Trained == 0 {
			t.Errorf("%s has no ledger: %v", ref.Stage, err)
		} else if err := l.Balance(); err != nil {
			t.Errorf("%s: %v", ref.Stage, err)
		}
	}
}

// corrupt changes a byte of a stored object.
func (p *tiny) corrupt(b artifact.Blob) {
	p.t.Helper()
	key, err := b.Key()
	if err != nil {
		p.t.Fatal(err)
	}
	r, _, err := p.tap.Get(p.t.Context(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		p.t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if _, err := p.tap.Backend.Put(p.t.Context(), key, bytes.NewReader(data), int64(len(data)), artifact.Condition{}); err != nil {
		p.t.Fatal(err)
	}
}

func TestACorruptInputIsNamed(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	for name, tt := range map[string]struct {
		blob artifact.Blob
		call Call
	}{
		"compressed lines":  {p.output(m.documents, "documents.jsonl.zst"), p.call("tokenizer", datasets.TokenizerParams{VocabSize: 301}, map[string]artifact.Ref{"documents": m.documents})},
		"a mapped file":     {p.output(m.tokens, "tokens.bin"), p.call("batches", datasets.BatchesParams{BatchSize: 3}, map[string]artifact.Ref{"tokens": m.tokens})},
		"a model's weights": {p.output(m.base, "model.safetensors"), p.training(m, func(t *datasets.TrainParams) { t.LearningRate = 1 })},
		"a plan":            {p.output(m.batches, "plan-0.jsonl"), p.training(m, func(t *datasets.TrainParams) { t.LearningRate = 2 })},
	} {
		t.Run(name, func(t *testing.T) {
			p.corrupt(tt.blob)
			_, err := p.Run(t.Context(), tt.call)
			wantType(t, err, CorruptArtifact, tt.blob.Digest[len("sha256:"):][:12], "starter verify")
			p.corrupt(tt.blob) // back
		})
	}
}

func TestAMissingInputIsNamed(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	call := p.call("batches", datasets.BatchesParams{BatchSize: 3}, map[string]artifact.Ref{"tokens": m.tokens})
	blob := p.output(m.tokens, "tokens.bin")
	key, err := blob.Key()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.tap.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	_, err = p.Run(t.Context(), call)
	wantType(t, err, MissingArtifact, "deleted or the store is another one")
	call.Inputs["tokens"] = artifact.Ref{Stage: "tokens", Key: strings.Repeat("0", 64), Generation: 1}
	_, err = p.Resolve(t.Context(), call)
	wantType(t, err, MissingArtifact, "input tokens")
}

func TestBadInputHasATypeAndSaysWhatToDo(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	empty := t.TempDir()
	unreadable := t.TempDir()
	if err := os.WriteFile(filepath.Join(unreadable, "bad.txt"), []byte("caf\xe9 \xff\xfe\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := func(path string) datasets.DocumentsParams {
		return datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Path: path}}}
	}
	toBatches := map[string]artifact.Ref{"tokens": m.tokens}
	for name, tt := range map[string]struct {
		stage  string
		params any
		inputs map[string]artifact.Ref
		kind   string
		words  []string
	}{
		"a directory that is not there":      {"documents", source(filepath.Join(empty, "none")), nil, BadData, []string{"none"}},
		"a directory without documents":      {"documents", source(empty), nil, BadData, nil},
		"an unknown encoding":                {"documents", source(unreadable), nil, BadData, []string{"bad.txt"}},
		"a tokenizer that is not there":      {"tokenizer", datasets.TokenizerParams{Path: empty}, nil, BadData, []string{"tokenizer.json"}},
		"a model that is not there":          {"checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveImport, Model: &datasets.ModelParams{Path: empty}}, nil, BadData, nil},
		"sequences that are all too long":    {"batches", datasets.BatchesParams{MaxLength: 4, OverLength: datasets.DropOverLength}, toBatches, BadConfig, []string{"max_length"}},
		"a sequence too long, asked to fail": {"batches", datasets.BatchesParams{MaxLength: 4, OverLength: datasets.ErrorOverLength}, toBatches, BadConfig, []string{"over_length"}},
		"an unknown chat template":           {"tokens", datasets.TokensStageParams{TokensParams: datasets.TokensParams{Template: "tango"}}, map[string]artifact.Ref{"instructions": m.instructions, "tokenizer": m.tokenizer}, BadConfig, []string{"tango"}},
		"an unknown teacher":                 {"instructions", datasets.InstructionsParams{Teacher: "aristotle"}, map[string]artifact.Ref{"documents": m.documents, "tokenizer": m.tokenizer}, BadConfig, []string{"aristotle"}},
		"an input that was not given":        {"batches", datasets.BatchesParams{}, nil, BadConfig, []string{`input "tokens"`}},
		"an input of another stage":          {"batches", datasets.BatchesParams{}, map[string]artifact.Ref{"tokens": m.documents}, BadData, []string{"tokens.bin"}},
		"a stage that is not known":          {"alchemy", struct{}{}, nil, BadConfig, []string{"alchemy"}},
		"a parameter that is not known":      {"batches", map[string]any{"metod": "naive"}, toBatches, BadConfig, []string{"metod"}},
		"a parameter out of range":           {"batches", map[string]any{"epochs": -1}, toBatches, BadConfig, []string{"epochs"}},
		"a device that is not known":         {"checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Train: &datasets.TrainParams{Device: "abacus"}}, map[string]artifact.Ref{"base": m.base, "tokens": m.tokens, "batches": m.batches}, BadConfig, []string{"abacus"}},
		"a training without parameters":      {"checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT}, nil, BadConfig, nil},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(tt.params)
			if err != nil {
				t.Fatal(err)
			}
			call := Call{Stage: tt.stage, Params: raw, Inputs: tt.inputs}
			r, err := p.Resolve(t.Context(), call)
			if err == nil {
				call.Key = r.Key
				_, err = p.Run(t.Context(), call)
			}
			wantType(t, err, tt.kind, tt.words...)
		})
	}
}
