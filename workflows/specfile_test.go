package workflows

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

// tinySpec is the smallest study file of these tests: two methods, one seed. Lines matter to the cases below.
const tinySpec = `name: tiny
documents:
  sources:
    - {path: corpus, format: go}
  held_out: 0.3
tokenizer: {vocab_size: 300}
tokens: {max_length: 128}
model:
  hidden_size: 16
  intermediate_size: 24
  num_hidden_layers: 1
  num_attention_heads: 2
  max_position_embeddings: 128
batches: {method: packing, batch_size: 2, epochs: 1}
train: {loss: longalign, learning_rate: 1e-3}
study:
  seeds: [1]
  methods:
    - name: packing
    - name: naive
      set: {batches.method: naive}
tables: {kind: demo}
`

func mustParse(t testing.TB, text string, sets ...string) Spec {
	t.Helper()
	spec, err := ParseSpec("tiny.yaml", []byte(text), sets)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestMistakesInAFileSayWhereTheyAreAndWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		edit [2]string // replaced in tinySpec
		text string    // or the whole file
		sets []string
		want string
	}{
		"unknown key, with the nearest one":   {edit: [2]string{"batches: {method:", "batches: {metod:"}, want: "tiny.yaml:14: batches.metod: unknown key; did you mean method?"},
		"unknown key at the top":              {edit: [2]string{"tokenizer:", "tokeniser:"}, want: "tiny.yaml:6: tokeniser: unknown key; did you mean tokenizer?"},
		"unknown key in a list":               {edit: [2]string{"{path: corpus, format: go}", "{pth: corpus}"}, want: "tiny.yaml:4: documents.sources.0.pth: unknown key; did you mean path?"},
		"unknown key unlike any":              {edit: [2]string{"learning_rate: 1e-3", "zzzzzzzzzz: 1"}, want: "tiny.yaml:15: train.zzzzzzzzzz: unknown key; known here: loss, learning_rate, min_lr,"},
		"keys differ in case":                 {edit: [2]string{"num_hidden_layers", "Num_Hidden_Layers"}, want: "tiny.yaml:11: model.Num_Hidden_Layers: unknown key; did you mean num_hidden_layers?"},
		"text for a number":                   {edit: [2]string{"hidden_size: 16", "hidden_size: wide"}, want: `tiny.yaml:9: model.hidden_size: wanted a whole number, got "wide"`},
		"a fraction for a whole number":       {edit: [2]string{"hidden_size: 16", "hidden_size: 16.5"}, want: `tiny.yaml:9: model.hidden_size: wanted a whole number, got "16.5"`},
		"a negative seed":                     {edit: [2]string{"seeds: [1]", "seeds: [-1]"}, want: `tiny.yaml:17: study.seeds.0: wanted a whole number that is not negative, got "-1"`},
		"not a number":                        {edit: [2]string{"learning_rate: 1e-3", "learning_rate: .nan"}, want: `tiny.yaml:15: train.learning_rate: wanted a number, got ".nan"`},
		"a list for a mapping":                {edit: [2]string{"tokenizer: {vocab_size: 300}", "tokenizer: [300]"}, want: "tiny.yaml:6: tokenizer: wanted a mapping with keys such as path, vocab_size, max_bytes, got a list"},
		"a mapping for a list":                {edit: [2]string{"seeds: [1]", "seeds: {a: 1}"}, want: "tiny.yaml:17: study.seeds: wanted a list, got a mapping"},
		"a number for a list of numbers":      {edit: [2]string{"seeds: [1]", "seeds: 1"}, want: `tiny.yaml:17: study.seeds: wanted a list, got "1"`},
		"text for yes or no":                  {edit: [2]string{"hidden_size: 16", "tie_word_embeddings: maybe"}, want: `tiny.yaml:9: model.tie_word_embeddings: wanted true or false, got "maybe"`},
		"a key given twice":                   {edit: [2]string{"tokens: {max_length: 128}", "tokens:\n  max_length: 128\n  max_length: 64"}, want: "tiny.yaml:9: tokens.max_length: given twice, first on line 8"},
		"a section given twice":               {edit: [2]string{"tables: {kind: demo}", "model: {hidden_size: 8}"}, want: "tiny.yaml:22: model: given twice, first on line 8"},
		"a file that is not YAML":             {text: "name: tiny\n\tdocuments: {}\n", want: "tiny.yaml:2: not valid YAML: "},
		"an unclosed bracket":                 {text: "name: tiny\ndocuments: {sources: [\n", want: "tiny.yaml:"},
		"an empty file":                       {text: "\n", want: "tiny.yaml: the file holds no experiment"},
		"a list":                              {text: "- name: tiny\n", want: "tiny.yaml: the file holds no experiment"},
		"two documents in a file":             {text: tinySpec + "---\nname: other\n", want: "tiny.yaml:23: the file holds a second YAML document"},
		"no name":                             {edit: [2]string{"name: tiny\n", ""}, want: `tiny.yaml: name: missing; add a line such as name: my-study`},
		"a name that is no part of an ID":     {edit: [2]string{"name: tiny", "name: Tiny/1"}, want: `tiny.yaml:1: name: "Tiny/1" must be`},
		"no documents and no tokenizer":       {edit: [2]string{"  sources:\n    - {path: corpus, format: go}\n", ""}, sets: []string{"tokens.only_mix=true", "tokens.mix=[{path: chats}]"}, want: "tokenizer.path: missing: without documents there is nothing to train a tokenizer on"},
		"pre-training without documents":      {edit: [2]string{"  sources:\n    - {path: corpus, format: go}\n", ""}, sets: []string{"tokens.only_mix=true", "tokens.mix=[{path: chats}]", "tokenizer={path: t}", "pretrain.tokens.max_tokens=9"}, want: "pretrain: pre-training is on documents"},
		"no documents":                        {edit: [2]string{"  sources:\n    - {path: corpus, format: go}\n", ""}, want: "tiny.yaml:3: documents.sources: there are none"},
		"an unknown format":                   {edit: [2]string{"format: go", "format: pdf"}, want: `tiny.yaml:4: documents.sources.0.format: "pdf" is not known; use auto,`},
		"an unknown loss":                     {edit: [2]string{"loss: longalign", "loss: paper"}, want: "tiny.yaml:15: train.loss: "},
		"a packing that the method has not":   {edit: [2]string{"method: packing, batch_size: 2", "method: naive, packing: best-fit, batch_size: 2"}, want: `tiny.yaml:14: batches.packing: "best-fit" is set but method is naive`},
		"two sizes of a step":                 {edit: [2]string{"batch_size: 2", "batch_size: 2, sequences_per_step: 4"}, want: "tiny.yaml:14: batches.sequences_per_step: a packing step has either"},
		"a tokenizer both read and trained":   {edit: [2]string{"{vocab_size: 300}", "{vocab_size: 300, path: dir}"}, want: "tiny.yaml:6: tokenizer.vocab_size: a tokenizer is either read from path or trained"},
		"a model both read and new":           {edit: [2]string{"hidden_size: 16", "path: dir"}, want: "tiny.yaml:9: model.path: a model is either read from path or made anew"},
		"sequences longer than the model":     {edit: [2]string{"max_length: 128", "max_length: 256"}, want: "tiny.yaml:7: tokens.max_length: 256 is more than the 128 positions of the model"},
		"batches that cannot hold a sequence": {edit: [2]string{"batch_size: 2", "batch_size: 2, max_length: 64, over_length: error"}, want: "tiny.yaml:14: batches.max_length: 64 is less than tokens.max_length, 128"},
		"heads that do not divide the width":  {edit: [2]string{"num_attention_heads: 2", "num_attention_heads: 3"}, want: "tiny.yaml:12: model.num_attention_heads: 3 heads do not divide"},
		"a study without methods":             {edit: [2]string{"    - name: packing\n    - name: naive\n      set: {batches.method: naive}\n", "    []\n"}, want: "tiny.yaml:19: study.methods: there are none"},
		"methods of one name":                 {edit: [2]string{"name: naive", "name: packing"}, want: `tiny.yaml:20: study.methods.1.name: "packing": methods need names that differ`},
		"a seed given twice":                  {edit: [2]string{"seeds: [1]", "seeds: [1, 2, 1]"}, want: "tiny.yaml:17: study.seeds.2: 1 is there already; seeds must differ"},
		"methods of one published row": {edit: [2]string{"    - name: packing\n    - name: naive\n", "    - {name: packing, published: packing}\n    - name: naive\n      published: packing\n"}, sets: []string{"tables.kind=paper"},
			want: `study.methods.1.published: "packing" of the same model and data set is also packing's`},
		"a method that sets an unknown key": {edit: [2]string{"{batches.method: naive}", "{batches.metod: naive}"}, want: "study.methods.1.set: method naive: batches.metod: unknown key; did you mean method?"},
		"a method that sets in what is not": {edit: [2]string{"{batches.method: naive}", "{batch.method: naive}"}, want: "study.methods.1.set: method naive: batch.method: unknown key; did you mean batches?"},
		"a method with a value of a wrong type": {edit: [2]string{"{batches.method: naive}", "{train.learning_rate: fast}"},
			want: "study.methods.1.set: method naive: train.learning_rate: wanted a number, got a string"},
		"a method that sets in what is absent": {edit: [2]string{"{batches.method: naive}", "{pretrain.tokens.max_tokens: 8}"},
			want: "study.methods.1.set: method naive: pretrain.tokens.max_tokens: there is no pretrain to set it in"},
		"an expectation about no method": {edit: [2]string{"{kind: demo}", "{kind: demo, expected: [{text: x, metric: loss, a: naive, b: sorted, direction: lower}]}"},
			want: `tiny.yaml:22: tables.expected.0: expectation about loss: there is no method "sorted"`},
		"a method that cannot be": {edit: [2]string{"{batches.method: naive}", "{tokens.max_length: 512}"},
			want: "study.methods.1.set: method naive: tokens.max_length: 512 is more than the 128 positions"},
		"a method that sets a study":   {edit: [2]string{"{batches.method: naive}", "{study.seeds: [1]}"}, want: "study.methods.1.set: method naive: study.seeds: it is the same for all methods"},
		"a baseline that is no method": {edit: [2]string{"{kind: demo}", "{kind: demo, baseline: sorted}"}, want: `tiny.yaml:22: tables.baseline: "sorted" is no method of the study; use packing or naive`},
		"a held-out loss without anything held out": {edit: [2]string{"learning_rate: 1e-3", "eval_every: 5"}, sets: []string{"documents.held_out=0"},
			want: "tiny.yaml:15: train.eval_every: there is nothing held out to measure the loss on; set documents.held_out"},
		"held-out instructions that are never asked":    {edit: [2]string{"learning_rate: 1e-3", "eval_instances: 5"}, want: "tiny.yaml:15: train.eval_instances: 5, but eval_every is 0"},
		"a held-out loss of pre-training":               {sets: []string{"pretrain.train.eval_every=3"}, want: "--set: pretrain.train.eval_every: the held-out loss is that of instructions"},
		"an assignment without a value":                 {sets: []string{"name"}, want: `--set: "name" is not key=value`},
		"an assignment without a key":                   {sets: []string{"=1"}, want: `--set: "=1" is not key=value`},
		"an assignment below a value":                   {sets: []string{"name.first=a"}, want: `--set: name.first: `},
		"an assignment past a list's end":               {sets: []string{"study.seeds.7=1"}, want: "--set: study.seeds.7: "},
		"an assignment to an unknown key":               {sets: []string{"batches.metod=naive"}, want: "--set: batches.metod: unknown key; did you mean method?"},
		"an assignment of a wrong type":                 {sets: []string{"train.learning_rate=fast"}, want: `--set: train.learning_rate: wanted a number, got "fast"`},
		"an assignment of a wrong type to a new key":    {sets: []string{"train.min_lr=low"}, want: `--set: train.min_lr: wanted a number, got "low"`},
		"an assignment that makes an impossible whole":  {sets: []string{"tokens.max_length=256"}, want: `--set: tokens.max_length: 256 is more than the 128 positions`},
		"an assignment into a list of the wrong type":   {sets: []string{"study.seeds=[one]"}, want: `--set: study.seeds.0: wanted a whole number`},
		"an assignment that makes a new section, wrong": {sets: []string{"pretrain.train.loss=paper"}, want: `--set: pretrain.train.loss: `},
	} {
		t.Run(name, func(t *testing.T) {
			text := tt.text
			if text == "" {
				text = strings.Replace(tinySpec, tt.edit[0], tt.edit[1], 1)
				if tt.edit[0] != "" && text == tinySpec {
					t.Fatalf("the case edits nothing: %q", tt.edit[0])
				}
			}
			_, err := ParseSpec("tiny.yaml", []byte(text), tt.sets)
			var se *SpecError
			if !errors.As(err, &se) {
				t.Fatalf("got %v, want a *SpecError", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestAssignmentsOverrideTheFile(t *testing.T) {
	for name, tt := range map[string]struct {
		sets []string
		get  func(Spec) any
		want any
	}{
		"a value that is there":     {[]string{"train.learning_rate=2e-5"}, func(s Spec) any { return s.Train.LearningRate }, 2e-5},
		"a key that is new":         {[]string{"train.min_lr=1e-6"}, func(s Spec) any { return s.Train.MinLR }, 1e-6},
		"a section that is new":     {[]string{"pretrain.tokens.max_tokens=1000"}, func(s Spec) any { return s.Pretrain.Tokens.MaxTokens }, int64(1000)},
		"a list":                    {[]string{"study.seeds=[3, 4]"}, func(s Spec) any { return s.Study.Seeds }, []uint64{3, 4}},
		"one entry of a list":       {[]string{"study.seeds.0=9"}, func(s Spec) any { return s.Study.Seeds }, []uint64{9}},
		"a field of a list's entry": {[]string{"documents.sources.0.path=elsewhere"}, func(s Spec) any { return s.Documents.Sources[0].Path }, "elsewhere"},
		"text with an equals sign":  {[]string{"title=a = b"}, func(s Spec) any { return s.Title }, "a = b"},
		"empty text":                {[]string{"title="}, func(s Spec) any { return s.Title }, ""},
		"the last one wins":         {[]string{"train.learning_rate=1", "train.learning_rate=2"}, func(s Spec) any { return s.Train.LearningRate }, 2.0},
		"a mapping":                 {[]string{"tokenizer={vocab_size: 400}"}, func(s Spec) any { return s.Tokenizer.VocabSize }, 400},
		"a number with underscores": {[]string{"documents.max_tokens=1_000"}, func(s Spec) any { return s.Documents.MaxTokens }, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.get(mustParse(t, tinySpec, tt.sets...))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnchorsAreFollowed(t *testing.T) {
	spec := mustParse(t, strings.Replace(strings.Replace(tinySpec, "train: {", "train: &t {", 1), "tables:", "pretrain: {train: *t, batches: {batch_size: 2}}\ntables:", 1))
	if got := spec.Pretrain.Train.LearningRate; got != 1e-3 {
		t.Errorf("the anchor's learning rate is %v, want 0.001", got)
	}
}

func TestWhatIsLeftOutHasDefaults(t *testing.T) {
	spec := mustParse(t, strings.Replace(tinySpec, "  seeds: [1]\n", "", 1), "pretrain.tokens.max_tokens=1000", "seed=7")
	got := map[string]any{
		"teacher": spec.Instructions.Teacher, "template": spec.Tokens.Template,
		"a batch is as long as a sequence":          spec.Batches.MaxLength,
		"the experiment's seed is the batches'":     spec.Batches.Seed,
		"a study has the experiment's seed":         spec.Study.Seeds,
		"pre-training takes sequences as long":      spec.Pretrain.Batches.MaxLength,
		"pre-training sees everything once":         spec.Pretrain.Batches.Epochs,
		"pre-training weighs every token alike":     spec.Pretrain.Train.Loss,
		"key/value heads are as many as query ones": spec.Model.NumKeyValueHeads,
	}
	want := map[string]any{
		"teacher": "offline", "template": "longalign",
		"a batch is as long as a sequence":          128,
		"the experiment's seed is the batches'":     uint64(7),
		"a study has the experiment's seed":         []uint64{7},
		"pre-training takes sequences as long":      128,
		"pre-training sees everything once":         1,
		"pre-training weighs every token alike":     datasets.LossToken,
		"key/value heads are as many as query ones": 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheContextIsExtendedToTheLongestSequence(t *testing.T) {
	text := "name: x\ndocuments: {sources: [{path: c}]}\ntokens: {max_length: 65536}\nmodel: {path: models/llama}\n"
	for name, tt := range map[string]struct {
		sets []string
		want int
	}{
		"where the base is scaled":          {[]string{"model.rope_theta_scale=200"}, 65536},
		"that of pre-training too":          {[]string{"model.rope_theta_scale=200", "pretrain.tokens.max_length=131072"}, 131072},
		"or to what is said":                {[]string{"model.rope_theta_scale=200", "model.max_position_embeddings=80000"}, 80000},
		"and is the model's own without it": {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mustParse(t, text, tt.sets...).Model.MaxPositionEmbeddings; got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestCellsAreMethodsTimesSeedsInTheFilesOrder(t *testing.T) {
	cells, err := mustParse(t, tinySpec, "study.seeds=[5, 2]", "train.loss=token").Cells()
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name   string
		Seed   uint64
		Method datasets.Method
		Size   int
		Loss   datasets.Loss
	}
	var got []row
	for _, c := range cells {
		if c.Spec.Study != nil {
			t.Errorf("cell %s has a study of its own", c.Name)
		}
		if c.Spec.Batches.Seed != c.Seed || c.Spec.Seed != c.Seed {
			t.Errorf("cell %s orders its sequences by seed %d", c.Name, c.Spec.Batches.Seed)
		}
		got = append(got, row{c.Name, c.Seed, c.Spec.Batches.Method, c.Spec.Batches.BatchSize, c.Spec.Train.Loss})
	}
	if diff := cmp.Diff([]row{
		{"packing/seed=5", 5, datasets.MethodPacking, 2, datasets.LossToken}, {"packing/seed=2", 2, datasets.MethodPacking, 2, datasets.LossToken},
		{"naive/seed=5", 5, datasets.MethodNaive, 2, datasets.LossToken}, {"naive/seed=2", 2, datasets.MethodNaive, 2, datasets.LossToken},
	}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnExperimentAloneIsOneCell(t *testing.T) {
	text, _, _ := strings.Cut(tinySpec, "study:")
	cells, err := mustParse(t, text).Cells()
	if err != nil || len(cells) != 1 || cells[0].Name != "tiny" || cells[0].Method != "packing" {
		t.Errorf("cells %+v, %v", cells, err)
	}
}

// The ID is what attaches a second start to the running one: it may not change between versions without a reason. When
// this fails because a parameter was added, give the parameter omitempty, or accept that running runs are not found again.
func TestTheWorkflowIDIsStable(t *testing.T) {
	for text, want := range map[string]string{
		tinySpec: "tiny-e758e76f9c1d",
		strings.Replace(tinySpec, "name: tiny\n", "# a comment\nname:   'tiny'\n", 1):                             "tiny-e758e76f9c1d",
		strings.Replace(tinySpec, "{method: packing, batch_size: 2, epochs: 1}", "{epochs: 1, batch_size: 2}", 1): "tiny-e758e76f9c1d",
		strings.Replace(tinySpec, "learning_rate: 1e-3", "learning_rate: 0.001", 1):                               "tiny-e758e76f9c1d",
		strings.Replace(tinySpec, "learning_rate: 1e-3", "learning_rate: 2e-3", 1):                                "tiny-12c5964a0c91",
	} {
		id, err := mustParse(t, text).WorkflowID()
		if err != nil || id != want {
			t.Errorf("got %s, %v, want %s", id, err, want)
		}
	}
}

func TestARecordedSpecIsTheSpec(t *testing.T) {
	for name, sets := range map[string][]string{
		"a study":              nil,
		"seeds of all 64 bits": {"study.seeds=[18446744073709551615, 9007199254740993]", "instructions.seed=9007199254740993"},
		"methods that set all": {"study.methods.1.set={batches.method: naive, train.learning_rate: 1e-7, model.init_seed: 18446744073709551615, documents.held_out: 0.25}"},
		"pre-training":         {"pretrain.tokens.max_tokens=1000"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := mustParse(t, tinySpec, sets...)
			raw, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			back, err := RecordedSpec(raw)
			if err != nil {
				t.Fatal(err)
			}
			id, err := spec.WorkflowID()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := back.WorkflowID(); got != id || err != nil {
				t.Errorf("resumed, the run has ID %s (%v), not %s", got, err, id)
			}
			again, err := json.Marshal(back)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(raw), string(again)); diff != "" {
				t.Error(diff)
			}
			before, err := spec.Cells()
			if err != nil {
				t.Fatal(err)
			}
			after, err := back.Cells()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("its cells differ:\n%s", diff)
			}
		})
	}
}

func TestARecordOfAnotherVersionIsRefused(t *testing.T) {
	for name, raw := range map[string]string{"unknown field": `{"name":"a","from_the_future":1}`, "not JSON": `{`, "nothing": ``, "no object": `[]`} {
		if _, err := RecordedSpec(json.RawMessage(raw)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTheExamplesAreValid(t *testing.T) {
	files, err := filepath.Glob("../starter/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseSpec(file, data, nil); err != nil {
			t.Error(err)
		}
	}
}

// FuzzParseSpec checks that no file makes the parser panic, that its errors are *SpecError, and that what it
// accepts can be recorded and run.
func FuzzParseSpec(f *testing.F) {
	f.Add(tinySpec, "")
	f.Add(tinySpec, "study.seeds=[1, 2]")
	f.Add("a: &a [*a]", "b=*a")
	f.Add("name: &x {y: *x}\ndocuments: *x", "documents.sources.0=1")
	f.Add("<<: {name: a}", "<<=1")
	f.Add("? [a]: b", "=")
	f.Add("study: {methods: [{name: a, set: {? [x] : 1}}]}", "study.methods.0.set.a.b=!!binary x")
	f.Add("!!set {name}", "name=!!null x")
	f.Add("documents: {sources: corpus}", "documents=~")
	f.Fuzz(func(t *testing.T, text, set string) {
		var sets []string
		if set != "" {
			sets = []string{set}
		}
		spec, err := ParseSpec("f.yaml", []byte(text), sets)
		if err != nil {
			var se *SpecError
			if !errors.As(err, &se) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		id, err := spec.WorkflowID()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := RecordedSpec(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := back.WorkflowID(); err != nil || got != id {
			t.Fatalf("recorded: %s, %v, not %s", got, err, id)
		}
	})
}
