package activities

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// divided runs a stage in shards of that many items, as its workflow does.
func (p *tiny) divided(call Call, items int) *artifact.Manifest {
	p.t.Helper()
	p.ShardItems = items
	o, err := p.RunDivisible(p.t.Context(), call)
	if err != nil {
		p.t.Fatal(err)
	}
	if o.Shards == nil || o.Shards.Count < 3 {
		p.t.Fatalf("the stage was not divided into three or more: %+v (%s)", o.Shards, call.Params)
	}
	call.Shards = o.Shards
	for i := range o.Shards.Count {
		if _, err := p.RunShard(p.t.Context(), ShardCall{Call: call, Index: i}); err != nil {
			p.t.Fatal(err)
		}
	}
	if o, err = p.RunDivisible(p.t.Context(), call); err != nil {
		p.t.Fatal(err)
	}
	return p.manifest(o.Ref)
}

// lasting are the digests of what later stages read.
func lasting(m *artifact.Manifest) map[string]string {
	digests := map[string]string{}
	for _, o := range m.Outputs {
		if !o.Volatile {
			digests[o.Name] = o.Blob.Digest
		}
	}
	return digests
}

func TestShardsJoinToWhatOneActivityMakes(t *testing.T) {
	whole, parts := newTiny(t), newTiny(t)
	parts.docs = whole.docs
	documents := whole.make("documents", whole.documentsParams(), nil)
	parts.make("documents", parts.documentsParams(), nil)
	tokenizer := whole.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": documents})
	parts.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": documents})
	// both makes a result in one activity and in shards, and returns it.
	both := func(name, stage string, params any, in map[string]artifact.Ref, items int) artifact.Ref {
		t.Helper()
		call := parts.call(stage, params, in)
		got := parts.divided(call, items)
		whole.ShardItems = items
		ref, err := whole.Run(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		want := whole.manifest(ref)
		for what, pair := range map[string][2]any{
			"key": {want.Key, got.Key}, "outputs": {lasting(want), lasting(got)}, "counts": {want.Counts, got.Counts},
			"notes": {want.Notes, got.Notes}, "inputs": {want.Inputs, got.Inputs}, "ledger": {string(want.Ledger), string(got.Ledger)},
		} {
			if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
				t.Errorf("%s, %s: %s", name, what, diff)
			}
		}
		return got.Ref()
	}
	in := map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer}
	instructions := both("instructions", "instructions", teacherParams, in, 3)
	both("tokens", "tokens", tokensParams, map[string]artifact.Ref{"instructions": instructions, "tokenizer": tokenizer}, 2)
	pretraining := datasets.TokensStageParams{FromDocuments: true}
	pretraining.MaxLength = 64
	all := both("pre-training", "tokens", pretraining, in, 1)
	n := parts.manifest(all).Counts["tokens"]
	for _, most := range []int64{n, n - 1, n * 4 / 5, n / 64 * 64, n/64*64 - 1} {
		pretraining.MaxTokens = most
		both(fmt.Sprintf("pre-training on %d tokens", most), "tokens", pretraining, in, 1)
	}
	for name, p := range map[string]datasets.BatchesParams{
		"packing": {Block: 6}, "sorted": {Method: datasets.MethodSorted, SequencesPerStep: 3, Block: 6}, "dropping": {OverLength: datasets.DropOverLength, MaxLength: 63, Block: 2},
	} {
		p.BatchSize, p.Epochs, p.Seed = 2, 3, 5
		for _, items := range []int{1, 2} {
			p.Seed++ // another key
			both(fmt.Sprintf("%s, %d blocks a shard", name, items), "batches", p, map[string]artifact.Ref{"tokens": all}, items)
		}
	}
}

// TestShardsOfDocumentsJoinToWhatOneActivityMakes has documents of all kinds looked at file by file.
func TestShardsOfDocumentsJoinToWhatOneActivityMakes(t *testing.T) {
	p, parts := newTiny(t), newTiny(t)
	dir, benchmark := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := func(i int) string {
		var b strings.Builder
		for k := range 40 {
			fmt.Fprintf(&b, "word%d ", (i+1)*(k+7)%1009)
		}
		return b.String()
	}
	for i := range 8 {
		write(dir, fmt.Sprintf("%d.txt", i), text(i%6))
	}
	write(dir, "3.jsonl", "broken\n{\"text\":\""+text(20)+"\"}\n{\"text\":\""+text(21)+"\"}\n")
	write(benchmark, "questions.jsonl", "{\"context\":\""+text(20)+"\"}\n")
	params := datasets.DocumentsParams{
		Sources: []datasets.DocumentSource{{Name: "mixed", Path: dir}, {Name: "packages", Path: p.docs, Format: datasets.FormatGo}}, BadInput: datasets.BadInputSkip, HeldOut: .2, Seed: 3,
		Decontaminate: []datasets.DocumentSource{{Name: "longbench", Path: benchmark, TextField: "context"}},
	}
	call := p.call("documents", params, nil)
	ref, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	want, got := p.manifest(ref), parts.divided(call, 1)
	for what, pair := range map[string][2]any{
		"key": {want.Key, got.Key}, "outputs": {lasting(want), lasting(got)}, "counts": {want.Counts, got.Counts}, "notes": {want.Notes, got.Notes}, "warnings": {want.Warnings, got.Warnings},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	if want.Counts["overlaps longbench"] != 1 || want.Counts["dropped: duplicate"] != 2 || len(want.Warnings) != 1 {
		t.Errorf("the corpus has not what it should: %v %v", want.Counts, want.Warnings)
	}
}

// TestPartsOfFilesThatChangedAreNotKept changes a file between its hashing for the key and the division of the work: nothing may be found
// under that key when the file is back.
func TestPartsOfFilesThatChangedAreNotKept(t *testing.T) {
	p := newTiny(t)
	dir := t.TempDir()
	for _, name := range []string{"a.txt", "b.txt", "c.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("the text of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	call := p.call("documents", datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Path: dir}}}, nil)
	if err := os.WriteFile(filepath.Join(dir, "b.txt"), []byte("another text"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.ShardItems = 1
	if o, err := p.RunDivisible(t.Context(), call); err == nil || !strings.Contains(err.Error(), "changed while the run was under way") {
		t.Fatalf("got %+v, %v", o, err)
	}
	for m, err := range p.Store.Manifests(t.Context(), "documents-parts") {
		t.Errorf("%v, %v is kept", m, err)
	}
}

// TestPretrainingKeepsItsOrder pins what documents were pre-trained on in which order: finished runs rest on it.
func TestPretrainingKeepsItsOrder(t *testing.T) {
	p := newTiny(t)
	documents := p.make("documents", p.documentsParams(), nil)
	tokenizer := p.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": documents})
	in := map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer}
	params := datasets.TokensStageParams{FromDocuments: true}
	params.MaxLength = 64
	call := p.call("tokens", params, in)
	ref, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	call.Inputs = map[string]artifact.Ref{"tokens": ref, "documents": documents, "tokenizer": tokenizer}
	j := &job{a: p.Activities, call: call, dir: t.TempDir()}
	tok, err := j.tokenizer(t.Context(), "tokenizer")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for d, err := range j.documents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Split == datasets.SplitTrain {
			texts = append(texts, d.Text)
		}
	}
	datasets.Shuffle(datasets.NewRand(0, 0x70726574), texts)
	var want, got []int32
	eos, _ := tok.EOS()
	for _, text := range texts {
		want = append(append(want, tok.EncodeOrdinary(text)...), eos)
	}
	set, closeSet, err := j.sequences(t.Context(), "tokens")
	if err != nil {
		t.Fatal(err)
	}
	defer closeSet()
	for i := range set.Len() {
		s, err := set.Sequence(i)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s.IDs...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSmallWorkIsOneActivity(t *testing.T) {
	p := newTiny(t)
	documents := p.make("documents", p.documentsParams(), nil)
	tokenizer := p.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": documents})
	o, err := p.RunDivisible(t.Context(), p.call("instructions", teacherParams, map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer}))
	if err != nil || o.Shards != nil || o.Ref.Stage != "instructions" {
		t.Errorf("%+v, %v", o, err)
	}
}

// teachingService proposes and answers; every seventh request is refused.
func teachingService(t *testing.T, requests *atomic.Int64) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		var sent struct{ Messages []struct{ Content string } }
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || r.Header.Get("authorization") != "Bearer sk-planted-in-activities" {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":{"message":"the key `+r.Header.Get("authorization")+` is wrong"}}`)
			return
		}
		text := "1: What is it?\n2: Why?"
		if !strings.Contains(sent.Messages[0].Content, "1:") {
			text = "It is what it is."
		}
		if n%7 == 0 {
			text = "I'm sorry, I cannot."
		}
		w.Header().Set("content-type", "application/json")
		fmt.Fprintf(w, `{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":100,"completion_tokens":10}}`, text)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1"
}

func TestALanguageModelTeaches(t *testing.T) {
	var requests atomic.Int64
	p := newTiny(t)
	t.Setenv("TEACHER_KEY", "sk-planted-in-activities")
	documents := p.make("documents", p.documentsParams(), nil)
	tokenizer := p.make("tokenizer", tokenizerParams, map[string]artifact.Ref{"documents": documents})
	in := map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer}
	params := func(change func(*datasets.EndpointParams)) datasets.InstructionsStageParams {
		e := datasets.EndpointParams{BaseURL: teachingService(t, &requests), Model: "m", KeyEnv: "TEACHER_KEY", PriceIn: 1, PriceOut: 1, MaxTokens: 50, MaxCostUSD: 5}
		if change != nil {
			change(&e)
		}
		return datasets.InstructionsStageParams{InstructionsParams: datasets.InstructionsParams{Teacher: "mine", Seed: 3}, Endpoint: &e}
	}
	call := p.call("instructions", params(nil), in)
	m := p.divided(call, 3)
	for _, ref := range []string{"instructions-parts", "instructions-shard"} {
		for _, r := range p.Store.Manifests(t.Context(), ref) {
			if r.Err != nil || r.Manifest.Started.Before(m.Started) {
				t.Errorf("%s began at %v, the whole at %v (%v)", ref, r.Manifest.Started, m.Started, r.Err)
			}
		}
	}
	paid := requests.Load()
	if m.Counts["requests"] != paid || m.Counts["instances"] == 0 || m.Counts[spentCount] == 0 {
		t.Errorf("%d requests came; counts %v", paid, m.Counts)
	}
	if least, most := m.Counts[forecastLeastCount], m.Counts[forecastMostCount]; least <= 0 || most < m.Counts[spentCount] {
		t.Errorf("the forecast is %d to %d, spent were %d", least, most, m.Counts[spentCount])
	}
	var r RequestsReport
	out, _ := m.Output(requestsFile)
	if err := p.Store.ReadJSON(t.Context(), out.Blob, &r); err != nil {
		t.Fatal(err)
	}
	if int64(r.Usage.Requests) != paid || r.Forecast.USD.Low <= 0 || r.Forecast.USD.High < r.Usage.SpentUSD {
		t.Errorf("usage %+v, forecast %+v", r.Usage, r.Forecast)
	}
	// Elsewhere, cheaper, under another name: the same result.
	elsewhere := params(func(e *datasets.EndpointParams) { e.PriceIn, e.Concurrency, e.RequestsPerMinute = 2, 1, 1e6 })
	elsewhere.Teacher = "yours"
	if key := p.call("instructions", elsewhere, in).Key; key != call.Key {
		t.Error("an address, a price or a name changes the key")
	}
	for name, change := range map[string]func(*datasets.EndpointParams){
		"the model": func(e *datasets.EndpointParams) { e.Model = "n" }, "max_tokens": func(e *datasets.EndpointParams) { e.MaxTokens = 51 },
		"the temperature": func(e *datasets.EndpointParams) { zero := 0.0; e.Temperature = &zero },
	} {
		if key := p.call("instructions", params(change), in).Key; key == call.Key {
			t.Errorf("%s does not change the key", name)
		}
	}
	_, err := p.Run(t.Context(), p.call("instructions", params(func(e *datasets.EndpointParams) { e.Model, e.MaxCostUSD = "o", 1e-6 }), in))
	wantType(t, err, BudgetExceeded, "max_cost_usd")
	t.Setenv("TEACHER_KEY", "sk-planted-and-wrong")
	_, err = p.Run(t.Context(), p.call("instructions", params(func(e *datasets.EndpointParams) { e.Model = "q" }), in))
	wantType(t, err, BadConfig, "key")
	if strings.Contains(err.Error(), "sk-planted") {
		t.Errorf("the error repeats the key: %v", err)
	}
	for info := range p.Store.Backend().List(t.Context(), "") {
		r, _, err := p.Store.Backend().Get(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_, err = fmt.Fprint(&b, info.Key)
		data := make([]byte, info.Size)
		n, _ := r.Read(data)
		b.Write(data[:n])
		r.Close()
		if err != nil || strings.Contains(b.String(), "sk-planted") {
			t.Errorf("the key is in %s", info.Key)
		}
	}
}

func TestConversationsAreMixedIn(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	dir := t.TempDir()
	var long strings.Builder
	for i := range 20 {
		fmt.Fprintf(&long, "{\"messages\":[{\"role\":\"user\",\"content\":\"q%d\"},{\"role\":\"assistant\",\"content\":\"a%d\"}]}\n", i, i)
	}
	var half bytes.Buffer // whole lines, and no end
	z := gzip.NewWriter(&half)
	if _, err := z.Write([]byte(long.String())); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"long.jsonl":      long.String(),
		"half.jsonl.gz":   half.String(),
		"wide.jsonl":      `{"instruction":"` + strings.Repeat("wide ", 30) + `","output":"done"}` + "\n" + `{"instruction":"do","output":"done"}`,
		"sharegpt.json":   `[{"conversations":[{"from":"gpt","value":"yes"},{"from":"human","value":"hi"},{"from":"gpt","value":"hello"}]},{"conversations":[{"from":"human","value":"alone"}]}]`,
		"alpaca/one.json": `[{"instruction":"do","input":"this","output":"done"}]`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := map[string]artifact.Ref{"instructions": m.instructions, "tokenizer": p.manifest(m.tokens).Inputs["tokenizer"]}
	own := int64(0)
	for _, err := range lines[datasets.Instance](t.Context(), &job{a: p.Activities, call: Call{Inputs: in}}, "instructions", trainFile) {
		if err != nil {
			t.Fatal(err)
		}
		own++
	}
	source := func(name string, change func(*datasets.MixSource)) datasets.MixSource {
		s := datasets.MixSource{Path: filepath.Join(dir, name)}
		if change != nil {
			change(&s)
		}
		return s
	}
	for name, tt := range map[string]struct {
		p     datasets.TokensParams
		want  map[string]int64
		fail  string
		place string
	}{
		"all of a file after the instructions": {datasets.TokensParams{Mix: []datasets.MixSource{source("long.jsonl", nil)}},
			map[string]int64{"from instructions": own, "from long.jsonl": 20, "sequences": own + 20}, "", ""},
		"only files, drawn and whole": {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{source("long.jsonl", func(s *datasets.MixSource) { s.Instances = 5 }), source("alpaca", nil)}},
			map[string]int64{"from long.jsonl": 5, "from alpaca": 1, "sequences": 6}, "", ""},
		"by weights": {datasets.TokensParams{MixTotal: 8, Mix: []datasets.MixSource{source("long.jsonl", func(s *datasets.MixSource) { s.Weight = 3 })}},
			map[string]int64{"from instructions": 2, "from long.jsonl": 6, "sequences": 8}, "", ""},
		"what cannot be read is skipped and counted": {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{source("sharegpt.json", func(s *datasets.MixSource) { s.BadInput = datasets.BadInputSkip })}},
			map[string]int64{"from sharegpt.json": 1, "unreadable: sharegpt.json": 1, "messages without a partner left out: sharegpt.json": 1, "sequences": 1}, "", "sharegpt.json:1: conversation 2: "},
		"a file cut short is named": {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{source("half.jsonl.gz", func(s *datasets.MixSource) { s.BadInput = datasets.BadInputSkip })}},
			map[string]int64{"from half.jsonl.gz": 20, "unreadable: half.jsonl.gz": 1, "sequences": 20}, "", "half.jsonl.gz:21: the file cannot be read from here on: unexpected EOF"},
		"a conversation over max_bytes is named": {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{source("wide.jsonl", func(s *datasets.MixSource) { s.BadInput, s.MaxBytes = datasets.BadInputSkip, 100 })}},
			map[string]int64{"from wide.jsonl": 1, "unreadable: wide.jsonl": 1, "sequences": 1}, "", "wide.jsonl:1: the conversation is longer than max_bytes (100)"},
		"or fails":                      {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{source("sharegpt.json", nil)}}, nil, BadData, ""},
		"more than there are":           {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{source("long.jsonl", func(s *datasets.MixSource) { s.Instances = 21 })}}, nil, BadConfig, ""},
		"a directory without JSON":      {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{{Path: t.TempDir()}}}, nil, BadData, ""},
		"a file that was never fetched": {datasets.TokensParams{OnlyMix: true, Mix: []datasets.MixSource{{Path: "$FETCHED/never"}}}, nil, BadData, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tt.p.Template, tt.p.MaxLength = "longalign", 512
			raw, err := json.Marshal(datasets.TokensStageParams{TokensParams: tt.p})
			if err != nil {
				t.Fatal(err)
			}
			c := Call{Stage: "tokens", Params: raw, Inputs: in}
			r, err := p.Resolve(t.Context(), c)
			if err == nil {
				c.Key = r.Key
				var ref artifact.Ref
				if ref, err = p.Run(t.Context(), c); err == nil {
					got := p.manifest(ref).Counts
					for source, n := range got {
						if places := p.manifest(ref).Warnings; strings.HasPrefix(source, "unreadable") && (len(places) != int(n) || !strings.Contains(places[0], tt.place)) {
							t.Errorf("%d were left out, the manifest names %q, want %q", n, places, tt.place)
						}
					}
					for name := range got {
						if !slices.ContainsFunc([]string{"from ", "unreadable", "messages", "sequences"}, func(s string) bool { return strings.HasPrefix(name, s) }) {
							delete(got, name)
						}
					}
					if diff := cmp.Diff(tt.want, got); diff != "" {
						t.Error(diff)
					}
				}
			}
			if tt.fail != "" {
				wantType(t, err, tt.fail)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDocumentsComeFromAStore(t *testing.T) {
	s, err := artifact.Open(t.Context(), "mem://"+t.Name()+"/corpus")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a/one.txt": "the first text", "a/two.jsonl": "{\"text\":\"the second\"}\n{\"text\":\"the third\"}\n"} {
		if _, err := s.Backend().Put(t.Context(), name, strings.NewReader(text), -1, artifact.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	p := newTiny(t)
	for path, want := range map[string]int64{"": 3, "/": 3} {
		params := datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Name: "store", Path: s.URI() + path}}}
		if got := p.manifest(p.make("documents", params, nil)).Counts["documents"]; got != want {
			t.Errorf("%d documents below %q, want %d", got, path, want)
		}
	}
	params, err := json.Marshal(datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Path: "mem://" + t.Name() + "/nothing"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Resolve(t.Context(), Call{Stage: "documents", Params: params})
	wantType(t, err, BadData, "no objects")
}

func TestAForecastCountsTheCopiesOfLongDocumentsOnce(t *testing.T) {
	documents := datasets.DocumentsReport{Kept: 10, HeldOut: 2, Copies: 8, Tokens: 18 * 1000}
	got := workload(documents, datasets.InstructionsParams{PerDocument: 1, PerHeldOut: 1})
	if got.Instances.High != 18 || got.Tokens.High != 18*1000 {
		t.Errorf("18 documents of 18,000 tokens with their copies are asked about once: got %v instances about %v tokens", got.Instances.High, got.Tokens.High)
	}
}
