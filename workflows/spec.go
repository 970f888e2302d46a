package workflows

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// Spec is an experiment or a study, as its YAML file says. It composes the stages' parameter types;
// names of keys are their json names.
type Spec struct {
	// Name begins the run's ID. Lower-case letters, digits and hyphens.
	Name        string `json:"name"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	// Seed is the order of training sequences; a study sets it for each cell.
	Seed uint64 `json:"seed"`

	Documents    datasets.DocumentsParams    `json:"documents"`
	Tokenizer    datasets.TokenizerParams    `json:"tokenizer"`
	Instructions datasets.InstructionsParams `json:"instructions"`
	Tokens       datasets.TokensParams       `json:"tokens"`
	// Endpoints are the language models that stages name: teachers, judges.
	Endpoints map[string]datasets.EndpointParams `json:"endpoints,omitempty"`
	Batches   datasets.BatchesParams             `json:"batches"`
	Model     datasets.ModelParams               `json:"model"`
	// Pretrain trains the model on the documents first; without it training starts from the model as it is.
	Pretrain    *PretrainSpec              `json:"pretrain,omitempty"`
	Train       datasets.TrainParams       `json:"train"`
	Predictions datasets.PredictionsParams `json:"predictions"`
	Scores      datasets.ScoresParams      `json:"scores"`
	// Benchmarks are what the trained models go through besides the held-out instructions.
	Benchmarks *datasets.BenchmarksParams `json:"benchmarks,omitempty"`
	Tables     reports.Params             `json:"tables"`
	Study      *StudySpec                 `json:"study,omitempty"`
}

// PretrainSpec is a shared stage of continual pre-training on packed documents.
type PretrainSpec struct {
	Tokens  PretrainTokens         `json:"tokens"`
	Batches datasets.BatchesParams `json:"batches"`
	Train   datasets.TrainParams   `json:"train"`
}

// PretrainTokens bounds what is pre-trained on.
type PretrainTokens struct {
	// MaxLength is the length of a training sequence in tokens; default the instructions' max_length.
	MaxLength int `json:"max_length,omitempty"`
	// MaxTokens stops after that many tokens of documents; 0 takes all.
	MaxTokens int64 `json:"max_tokens,omitempty"`
}

// StudySpec spans the grid.
type StudySpec struct {
	Methods []MethodSpec `json:"methods"`
	Seeds   []uint64     `json:"seeds"` // default: the experiment's seed alone
}

// MethodSpec is a column of the grid: a name, and what differs from the experiment.
type MethodSpec struct {
	Name string `json:"name"`
	// Label is what tables print; Published the row of the paper it stands beside, by default that of its batching and loss.
	Label     string `json:"label,omitempty"`
	Published string `json:"published,omitempty"`
	// Dataset is the published name of what it was trained on, where methods differ in that; default tables.dataset.
	Dataset string `json:"dataset,omitempty"`
	// Set maps dotted keys of the experiment to other values. They stay as written: decoded, long seeds would lose digits.
	Set map[string]json.RawMessage `json:"set,omitempty"`
}

// Cell is one experiment of the grid.
type Cell struct {
	Name   string // "packing/seed=2"
	Method string
	Seed   uint64
	Spec   Spec // without a study
}

var nameRule = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// withDefaults fills in what the file leaves out and checks that the parts fit together.
func (s Spec) withDefaults() (Spec, error) {
	if s.Name == "" {
		return s, &SpecError{Key: "name", Reason: "missing; add a line such as name: my-study"}
	}
	if !nameRule.MatchString(s.Name) || len(s.Name) > 60 {
		return s, &SpecError{Key: "name", Reason: fmt.Sprintf("%q must be 1 to 60 lower-case letters, digits and single hyphens", s.Name)}
	}
	s = s.fill()
	if err := s.check(); err != nil {
		return s, err
	}
	if s.Study == nil {
		return s, nil
	}
	if len(s.Study.Seeds) == 0 {
		s.Study.Seeds = []uint64{s.Seed}
	}
	if _, err := s.Cells(); err != nil {
		return s, err
	}
	return s, s.checkTables()
}

func (s Spec) fill() Spec {
	s.Documents, s.Tokenizer, s.Instructions = s.Documents.Defaults(), s.Tokenizer.Defaults(), s.Instructions.Defaults()
	s.Tokens, s.Model, s.Train = s.Tokens.Defaults(), s.Model.Defaults(), s.Train.Defaults()
	if s.Endpoints != nil {
		filled := map[string]datasets.EndpointParams{}
		for _, name := range sortedKeys(s.Endpoints) {
			e := s.Endpoints[name]
			filled[name] = e.Defaults()
		}
		s.Endpoints = filled
	}
	if s.Batches.MaxLength == 0 {
		s.Batches.MaxLength = s.Tokens.MaxLength
	}
	if s.Batches.Seed == 0 {
		s.Batches.Seed = s.Seed
	}
	if s.Tables.Kind == "" && s.Benchmarks == nil && s.Tables.Ratings == nil {
		s.Tables.Kind = reports.KindDemo // the paper's tables would show nothing of ours
	}
	s.Batches, s.Predictions, s.Scores, s.Tables = s.Batches.Defaults(), s.Predictions.Defaults(), s.Scores.Defaults(), s.Tables.Defaults()
	s.Benchmarks = s.fillBenchmarks()
	if s.Pretrain != nil {
		p := *s.Pretrain
		if p.Tokens.MaxLength == 0 {
			p.Tokens.MaxLength = s.Tokens.MaxLength
		}
		if p.Batches.MaxLength == 0 {
			p.Batches.MaxLength = p.Tokens.MaxLength
		}
		if p.Batches.Epochs == 0 {
			p.Batches.Epochs = 1
		}
		if p.Train.Loss == "" {
			p.Train.Loss = datasets.LossToken
		}
		p.Batches, p.Train = p.Batches.Defaults(), p.Train.Defaults()
		s.Pretrain = &p
	}
	if s.Model.Path != "" && s.Model.RopeThetaScale != 1 && s.Model.MaxPositionEmbeddings == 0 {
		// Who scales the base means to train at this length.
		s.Model.MaxPositionEmbeddings = s.longest()
	}
	return s
}

// hasDocuments tells an experiment on documents from one on conversations alone, which has no instructions of its own and nothing held out.
func (s Spec) hasDocuments() bool { return len(s.Documents.Sources) > 0 }

// longest is the most tokens that a training sequence may have.
func (s Spec) longest() int {
	if s.Pretrain == nil {
		return s.Tokens.MaxLength
	}
	return max(s.Tokens.MaxLength, s.Pretrain.Tokens.MaxLength)
}

// check validates each part, and what parts must have in common.
func (s Spec) check() error {
	for _, part := range []struct {
		key   string
		check interface{ Validate() error }
	}{
		{"documents", s.Documents}, {"tokenizer", s.Tokenizer}, {"instructions", s.Instructions}, {"tokens", s.Tokens},
		{"batches", s.Batches}, {"model", s.Model}, {"train", s.Train}, {"predictions", s.Predictions}, {"scores", s.Scores}, {"tables", s.Tables},
	} {
		if part.key == "documents" && !s.hasDocuments() {
			continue
		}
		if err := at(part.key, part.check.Validate()); err != nil {
			return err
		}
	}
	if err := s.checkEndpoints(); err != nil {
		return err
	}
	if err := s.checkBenchmarks(); err != nil {
		return err
	}
	for i, m := range s.Tokens.Mix {
		if m.Path == "" {
			return &SpecError{Key: fmt.Sprintf("tokens.mix.%d.path", i), Reason: "name a file or directory of conversations, such as $FETCHED/longalpaca-12k"}
		}
	}
	if s.Pretrain != nil {
		if err := at("pretrain.batches", s.Pretrain.Batches.Validate()); err != nil {
			return err
		}
		if err := at("pretrain.train", s.Pretrain.Train.Validate()); err != nil {
			return err
		}
		if s.Pretrain.Train.EvalEvery > 0 {
			return &SpecError{Key: "pretrain.train.eval_every", Reason: "the held-out loss is that of instructions, which pre-training does not learn; set train.eval_every"}
		}
	}
	switch {
	case !s.hasDocuments() && !s.Tokens.OnlyMix:
		return &SpecError{Key: "documents.sources", Reason: "there are none; name at least one directory or file of documents, or train on conversations alone: tokens.mix with tokens.only_mix"}
	case !s.hasDocuments() && s.Tokenizer.Path == "":
		return &SpecError{Key: "tokenizer.path", Reason: "missing: without documents there is nothing to train a tokenizer on; name the model's directory"}
	case !s.hasDocuments() && s.Pretrain != nil:
		return &SpecError{Key: "pretrain", Reason: "pre-training is on documents, and documents.sources names none"}
	case s.Train.EvalEvery > 0 && (!s.hasDocuments() || s.Documents.HeldOut == 0):
		return &SpecError{Key: "train.eval_every", Reason: "there is nothing held out to measure the loss on; set documents.held_out or remove it"}
	case s.Batches.MaxLength < s.Tokens.MaxLength && s.Batches.OverLength == datasets.ErrorOverLength:
		return &SpecError{Key: "batches.max_length", Reason: fmt.Sprintf("%d is less than tokens.max_length, %d, so that a batch could not hold every sequence; raise it", s.Batches.MaxLength, s.Tokens.MaxLength)}
	case s.Model.Path == "" && s.Model.MaxPositionEmbeddings < s.longest():
		key := "tokens.max_length"
		if s.longest() > s.Tokens.MaxLength {
			key = "pretrain.tokens.max_length"
		}
		return &SpecError{Key: key, Reason: fmt.Sprintf("%d is more than the %d positions of the model; lower it or raise model.max_position_embeddings", s.longest(), s.Model.MaxPositionEmbeddings)}
	case s.Model.Path == "" && s.Tokenizer.Path != "" && s.Pretrain == nil:
		return &SpecError{Key: "model", Reason: "a new model that is not pre-trained knows nothing; add pretrain or name a model in model.path"}
	}
	return nil
}

// checkEndpoints checks the language models, and that the teacher is one of them or needs none.
func (s Spec) checkEndpoints() error {
	for _, name := range sortedKeys(s.Endpoints) {
		if name == datasets.OfflineTeacher {
			return &SpecError{Key: "endpoints." + name, Reason: "the name is taken by the teacher that needs no network; choose another"}
		}
		if err := at("endpoints."+name, s.Endpoints[name].Validate()); err != nil {
			return err
		}
	}
	teacher := s.Instructions.Teacher
	if _, ok := s.Endpoints[teacher]; !ok && teacher != datasets.OfflineTeacher {
		return &SpecError{Key: "instructions.teacher", Reason: fmt.Sprintf("%q is no endpoint of this file; add it under endpoints:, or use %s", teacher, datasets.OfflineTeacher)}
	}
	return nil
}

// checkTables checks that the tables compare methods of the study.
func (s Spec) checkTables() error {
	var methods []string
	for _, m := range s.Study.Methods {
		methods = append(methods, m.Name)
	}
	if b := s.Tables.Baseline; b != "" && !slices.Contains(methods, b) {
		return &SpecError{Key: "tables.baseline", Reason: fmt.Sprintf("%q is no method of the study; use %s", b, strings.Join(methods, " or "))}
	}
	if err := s.checkPublished(); err != nil {
		return err
	}
	for i, e := range s.Tables.Expected {
		if err := e.Validate(methods); err != nil {
			return &SpecError{Key: fmt.Sprintf("tables.expected.%d", i), Reason: err.Error()}
		}
	}
	return nil
}

// checkPublished checks that no two methods are said to stand beside the same published row, whose value would be their mean.
func (s Spec) checkPublished() error {
	cells, err := s.Cells()
	if err != nil || s.Tables.Kind != reports.KindPaper {
		return err
	}
	by := map[publishedPlace]string{}
	for i, m := range s.Study.Methods {
		c := cells[i*len(s.Study.Seeds)].Spec
		place := publishedPlace{m.Published, c.modelName(), cmp.Or(m.Dataset, s.Tables.Dataset)}
		if other, taken := by[place]; taken && m.Published != "" {
			return &SpecError{Key: fmt.Sprintf("study.methods.%d.published", i), Reason: fmt.Sprintf("%q of the same model and data set is also %s's; "+
				"give it to one of them, or name the data set that %s is trained on (dataset: LongAlign-5k)", m.Published, other, m.Name)}
		}
		by[place] = m.Name
	}
	return nil
}

// at gives a parameter's mistake its full key.
func at(key string, err error) error {
	if err == nil {
		return nil
	}
	var p *datasets.ParamError
	if errors.As(err, &p) {
		return &SpecError{Key: key + "." + p.Field, Reason: p.Reason}
	}
	return &SpecError{Key: key, Reason: err.Error()}
}

// Cells returns the grid: every method with every seed, in the order the file gives.
func (s Spec) Cells() ([]Cell, error) {
	if s.Study == nil {
		return []Cell{{Name: s.Name, Method: string(s.Batches.Method), Seed: s.Seed, Spec: s}}, nil
	}
	if len(s.Study.Methods) == 0 {
		return nil, &SpecError{Key: "study.methods", Reason: "there are none; name at least one, or remove study"}
	}
	for i, seed := range s.Study.Seeds {
		if slices.Contains(s.Study.Seeds[:i], seed) {
			return nil, &SpecError{Key: fmt.Sprintf("study.seeds.%d", i), Reason: fmt.Sprintf("%d is there already; seeds must differ", seed)}
		}
	}
	var cells []Cell
	seen := map[string]bool{}
	for i, m := range s.Study.Methods {
		if m.Name == "" || seen[m.Name] {
			return nil, &SpecError{Key: fmt.Sprintf("study.methods.%d.name", i), Reason: fmt.Sprintf("%q: methods need names that differ", m.Name)}
		}
		seen[m.Name] = true
		for _, seed := range s.Study.Seeds {
			e, err := s.variant(m.Set)
			if err != nil {
				return nil, &SpecError{Key: fmt.Sprintf("study.methods.%d.set", i), Reason: fmt.Sprintf("method %s: %v", m.Name, err)}
			}
			e.Seed = seed
			e.Batches.Seed = seed
			if e, err = e.withDefaults(); err != nil {
				return nil, &SpecError{Key: fmt.Sprintf("study.methods.%d.set", i), Reason: fmt.Sprintf("method %s: %v", m.Name, bare(err))}
			}
			cells = append(cells, Cell{Name: fmt.Sprintf("%s/seed=%d", m.Name, seed), Method: m.Name, Seed: seed, Spec: e})
		}
	}
	return cells, nil
}

// bare is a mistake without the file, which only the whole has.
func bare(err error) string {
	var se *SpecError
	if errors.As(err, &se) {
		return se.Key + ": " + se.Reason
	}
	return err.Error()
}

// variant returns the experiment with some values replaced. The batching fields that belong to
// the experiment's own method are dropped first when the method changes: they were defaults of another one.
func (s Spec) variant(set map[string]json.RawMessage) (Spec, error) {
	s.Study = nil
	var method datasets.Method
	if raw, ok := set["batches.method"]; ok && json.Unmarshal(raw, &method) == nil && method != s.Batches.Method {
		s.Batches.Packing, s.Batches.Balance, s.Batches.ComputeWidth = "", "", 0
		if method == datasets.MethodPacking && s.Batches.SequencesPerStep > 0 {
			s.Batches.BatchSize = 0
		}
	}
	tree, err := decodeTree(mustJSON(s))
	if err != nil {
		return s, err
	}
	for _, key := range sortedKeys(set) {
		parts := strings.Split(key, ".")
		if slices.Contains(ofTheStudy, parts[0]) || key == "batches.seed" {
			return s, fmt.Errorf("%s: it is the same for all methods; methods differ in how they are made, seeds are in study.seeds", key)
		}
		if err := checkKey(reflect.TypeFor[Spec](), parts); err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
		at := tree
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				return s, fmt.Errorf("%s: there is no %s to set it in", key, p)
			}
			at = next
		}
		at[parts[len(parts)-1]] = set[key]
	}
	v, err := decodeSpec(tree)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return s, fmt.Errorf("%s: wanted %s, got a %s", wrong.Field, kindName(wrong.Type), wrong.Value)
	}
	if err != nil {
		return s, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return v, nil
}

// ofTheStudy are the keys that no method can set for itself.
var ofTheStudy = []string{"name", "title", "description", "seed", "study", "tables"}

// WorkflowID is the run's ID: its name and a digest of all it asks for. The same file
// therefore attaches to the running run.
func (s Spec) WorkflowID() (string, error) {
	canonical, err := artifact.CanonicalJSON(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(canonical)
	return s.Name + "-" + hex.EncodeToString(sum[:6]), nil
}

// modelName names the model in tables and search attributes.
func (s Spec) modelName() string {
	if s.Model.Name != "" {
		return s.Model.Name
	}
	return path.Base(s.Model.Path)
}

// Summary is the run on one line, for the Temporal UI.
func (s Spec) Summary() string {
	if s.Title != "" {
		return s.Title
	}
	return s.Name
}

// Details describes the run in Markdown, for the Temporal UI.
func (s Spec) Details() string {
	var b strings.Builder
	b.WriteString(s.Description)
	if s.Study != nil {
		var names []string
		for _, m := range s.Study.Methods {
			names = append(names, m.Name)
		}
		fmt.Fprintf(&b, "\n\nMethods: %s. Seeds: %v.", strings.Join(names, ", "), s.Study.Seeds)
	}
	return strings.TrimSpace(b.String())
}

// SearchAttributes are the run's, for Temporal's list.
func (s Spec) SearchAttributes() temporal.SearchAttributes {
	method := string(s.Batches.Method)
	if s.Study != nil {
		method = "study"
	}
	return searchAttributes(s.Name, "", method, s.modelName())
}
