package datasets

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The zero value of every stage's parameters, with defaults, is the paper's recipe and valid.
func TestDefaultsAreThePapersRecipe(t *testing.T) {
	batches := BatchesParams{}.Defaults()
	want := BatchesParams{Method: MethodPacking, Packing: PackingDefault, MaxLength: 65536, BatchSize: 8, Epochs: 2, OverLength: TruncateRight, Balance: BalanceTokens}
	if diff := cmp.Diff(want, batches); diff != "" {
		t.Error(diff)
	}
	documents := DocumentsParams{Sources: []DocumentSource{{Path: "x"}}}.Defaults()
	for name, err := range map[string]error{
		"batches":      batches.Validate(),
		"naive":        BatchesParams{Method: MethodNaive}.Defaults().Validate(),
		"documents":    documents.Validate(),
		"instructions": InstructionsParams{}.Defaults().Validate(),
		"tokens":       TokensParams{}.Defaults().Validate(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(documents, documents.Defaults()); diff != "" {
		t.Errorf("defaults of defaults differ:\n%s", diff)
	}
}

func TestWrongParametersAreNamedByTheirField(t *testing.T) {
	documents := func(change func(*DocumentsParams)) error {
		p := DocumentsParams{Sources: []DocumentSource{{Path: "x"}}}.Defaults()
		change(&p)
		return p.Validate()
	}
	mix := func(total int, sources ...MixSource) error {
		return TokensParams{MixTotal: total, Mix: sources}.Defaults().Validate()
	}
	endpoint := func(change func(*EndpointParams)) error {
		p := EndpointParams{Model: "m"}.Defaults()
		change(&p)
		return p.Validate()
	}
	for _, tt := range []struct {
		want string
		err  error
	}{
		{"sources", documents(func(p *DocumentsParams) { p.Sources = nil })},
		{"sources.0.format", documents(func(p *DocumentsParams) { p.Sources[0].Format = "pdf" })},
		{"sources.0.lang", documents(func(p *DocumentsParams) { p.Sources[0].Lang = "de" })},
		{"sources.0.include.0", documents(func(p *DocumentsParams) { p.Sources[0].Include = []string{"a[/**"} })},
		{"sources.0.part_bytes", documents(func(p *DocumentsParams) { p.Sources[0].PartBytes = 5 })},
		{"min_tokens", documents(func(p *DocumentsParams) { p.MinTokens, p.MaxTokens = 5, 4 })},
		{"max_bytes", documents(func(p *DocumentsParams) { p.MaxBytes = -1 })},
		{"bad_input", documents(func(p *DocumentsParams) { p.BadInput = "ignore" })},
		{"held_out", documents(func(p *DocumentsParams) { p.HeldOut = 1 })},
		{"near_duplicates", documents(func(p *DocumentsParams) { p.NearDuplicates = 2 })},
		{"upsample_times", documents(func(p *DocumentsParams) { p.UpsampleTimes = -1 })},
		{"upsample_above", documents(func(p *DocumentsParams) { p.UpsampleTimes = 2 })},
		{"max_documents", documents(func(p *DocumentsParams) { p.MaxDocuments = -1 })},
		{"max_held_out", documents(func(p *DocumentsParams) { p.MaxHeldOut = -1 })},
		{"max_tokens", documents(func(p *DocumentsParams) { p.MaxTokens = -1 })},
		{"decontaminate.1.exclude.1", documents(func(p *DocumentsParams) {
			p.Decontaminate = sourceDefaults([]DocumentSource{{Path: "x"}, {Path: "y", Exclude: []string{"a", "b["}}})
		})},
		{"per_held_out", InstructionsParams{PerHeldOut: -1}.Defaults().Validate()},
		{"per_document", InstructionsParams{PerDocument: -1}.Defaults().Validate()},
		{"questions", InstructionsParams{Questions: 21}.Defaults().Validate()},
		{"attempts", InstructionsParams{Attempts: -1}.Defaults().Validate()},
		{"tasks.0", InstructionsParams{Tasks: []TaskType{"poem"}}.Defaults().Validate()},
		{"max_length", TokensParams{MaxLength: 1}.Defaults().Validate()},
		{"over_length", TokensParams{OverLength: "cut"}.Defaults().Validate()},
		{"cut_answers", TokensParams{CutAnswers: "mend"}.Defaults().Validate()},
		{"mix.1.name", mix(0, MixSource{Path: "a"}, MixSource{Path: "b/a"})},
		{"mix.0.instances", mix(0, MixSource{Path: "a", Instances: -1})},
		{"mix.0.instances", mix(9, MixSource{Path: "a", Instances: 1})},
		{"mix.1.weight", mix(0, MixSource{Path: "a"}, MixSource{Path: "b", Weight: 1})},
		{"mix.1.bad_input", mix(0, MixSource{Path: "a"}, MixSource{Path: "b", BadInput: "ignore"})},
		{"price_out", endpoint(func(p *EndpointParams) { p.PriceOut = -1 })},
		{"max_cost_usd", endpoint(func(p *EndpointParams) { p.MaxCostUSD = -1 })},
		{"tokens_per_minute", endpoint(func(p *EndpointParams) { p.TokensPerMinute = -1 })},
		{"block", BatchesParams{Block: -1}.Defaults().Validate()},
	} {
		var param *ParamError
		if !errors.As(tt.err, &param) || param.Field != tt.want {
			t.Errorf("got %v, want an error about %s", tt.err, tt.want)
		}
	}
}

func TestReportsOfShardsAddUp(t *testing.T) {
	var r TokensReport
	r.Add(TokensReport{Instances: 2, Sequences: 1, EmptyReplies: 1, Dropped: map[string]int{"x": 1}, Lengths: []int{0, 1}, Ledger: Ledger{Input: 3, Dropped: 3}})
	r.Add(TokensReport{Instances: 1, Sequences: 1, Dropped: map[string]int{"x": 1, "y": 1}, Lengths: []int{1, 1, 1}, Ledger: Ledger{Input: 2, Trained: 2}})
	want := TokensReport{Instances: 3, Sequences: 2, EmptyReplies: 1, Dropped: map[string]int{"x": 2, "y": 1}, Lengths: []int{1, 2, 1}, Ledger: Ledger{Input: 5, Trained: 2, Dropped: 3}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	var i InstructionsReport
	i.Add(InstructionsReport{Teacher: "t", Instances: 2, HeldOut: 1, Failed: map[string]int{"refused": 1}, Tasks: map[TaskType]int{TaskSummary: 2}})
	i.Add(InstructionsReport{Teacher: "t", Instances: 1, Failed: map[string]int{"refused": 1}, InputTokens: 4})
	if diff := cmp.Diff(InstructionsReport{Teacher: "t", Instances: 3, HeldOut: 1, Failed: map[string]int{"refused": 2}, Tasks: map[TaskType]int{TaskSummary: 2}, InputTokens: 4}, i); diff != "" {
		t.Error(diff)
	}
}

func TestInstancesThatCannotBeTrainedOn(t *testing.T) {
	say := func(roles ...string) (i Instance) {
		for _, r := range roles {
			i.Messages = append(i.Messages, Message{Role: r, Content: "x"})
		}
		return i
	}
	if err := say(RoleSystem, RoleUser, RoleAssistant).Check(); err != nil {
		t.Error(err)
	}
	for name, i := range map[string]Instance{
		"no messages": say(), "an unknown role": say("robot", RoleAssistant), "the user has the last word": say(RoleAssistant, RoleUser),
	} {
		if i.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
