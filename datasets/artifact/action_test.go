package artifact

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() Action {
	return Action{
		Stage:        "checkpoint",
		StageVersion: 3,
		Params:       map[string]any{"learning_rate": 2e-5, "loss": "longalign", "epochs": 2},
		Seeds:        map[string]uint64{"init": 1 << 63, "order": 7},
		Inputs:       map[string]string{"batches": "sha256:aa", "model": "sha256:bb"},
		Precision:    "float32",
		DeviceClass:  "amd64-avx2",
	}
}

// These keys are what results are stored under. A change here makes every stored result unreachable.
func TestActionKeysStayTheSame(t *testing.T) {
	for name, tt := range map[string]struct {
		action    Action
		key       string
		canonical string
	}{
		"every field": {sample(), "455bd66f43b103b8a2391d7649138cd742a62c1edcace5f24295b2ac5629d76e", `{"device_class":"amd64-avx2","inputs":{"batches":"sha256:aa","model":"sha256:bb"},"params":{"epochs":2,"learning_rate":0.00002,"loss":"longalign"},"precision":"float32","seeds":{"init":9223372036854775808,"order":7},"stage":"checkpoint","stage_version":3}`},
		"the least":   {Action{Stage: "documents", StageVersion: 1}, "6e3e5ff1ddf20e81bc802b4cd43c75a596ff1dcef0668dd161304ff1972c1155", `{"params":{},"stage":"documents","stage_version":1}`},
	} {
		key, canonical, err := tt.action.Key()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.key, key); diff != "" {
			t.Errorf("%s: key (−want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tt.canonical, string(canonical)); diff != "" {
			t.Errorf("%s: canonical (−want +got):\n%s", name, diff)
		}
	}
}

func TestActionKeysDifferByWhatTheResultMeans(t *testing.T) {
	base, _, err := sample().Key()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{base: "the sample"}
	for name, change := range map[string]func(*Action){
		"stage":         func(a *Action) { a.Stage = "scores" },
		"stage version": func(a *Action) { a.StageVersion++ },
		"a parameter":   func(a *Action) { a.Params = map[string]any{"learning_rate": 2e-5, "loss": "token", "epochs": 2} },
		"a seed":        func(a *Action) { a.Seeds = map[string]uint64{"init": 1<<63 + 1, "order": 7} },
		"an input":      func(a *Action) { a.Inputs = map[string]string{"batches": "sha256:aa", "model": "sha256:bc"} },
		"swapped roles": func(a *Action) { a.Inputs = map[string]string{"batches": "sha256:bb", "model": "sha256:aa"} },
		"precision":     func(a *Action) { a.Precision = "bf16" },
		"device class":  func(a *Action) { a.DeviceClass = "" },
	} {
		a := sample()
		a.Inputs = maps.Clone(a.Inputs)
		change(&a)
		key, _, err := a.Key()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if other, taken := seen[key]; taken {
			t.Errorf("%s gives the key of %s", name, other)
		}
		seen[key] = name
	}

	type params struct {
		Loss   string  `json:"loss"`
		Rate   float64 `json:"learning_rate"`
		Epochs int     `json:"epochs"`
	}
	for name, same := range map[string]any{
		"a struct":   params{"longalign", 0.00002, 2},
		"other text": json.RawMessage(`{"epochs": 2.0, "learning_rate": 20e-6, "loss": "longalig\u006e"}`),
	} {
		a := sample()
		a.Params = same
		if key, _, err := a.Key(); err != nil || key != base {
			t.Errorf("%s: equal parameters give key %s, %v; want %s", name, key, err, base)
		}
	}
}

func TestActionKeyRefuses(t *testing.T) {
	for name, a := range map[string]Action{
		"no stage":               {},
		"a stage with a slash":   {Stage: "a/b"},
		"a hidden stage":         {Stage: ".."},
		"an input without bytes": {Stage: "tokens", Inputs: map[string]string{"instructions": ""}},
		"parameters not JSON":    {Stage: "tokens", Params: json.RawMessage(`{`)},
	} {
		if key, _, err := a.Key(); err == nil {
			t.Errorf("%s: got key %s, want an error", name, key)
		}
	}
}

func TestManifestDigestIsOfResultsOnly(t *testing.T) {
	m, err := NewManifest(sample())
	if err != nil {
		t.Fatal(err)
	}
	blob := func(c string) Blob { return Blob{Digest: digestOf([]byte(c)), Size: 1} }
	m.Outputs = []Output{{Name: "model", Blob: blob("a")}, {Name: "log", Blob: blob("b")}, {Name: "timing", Blob: blob("c"), Volatile: true}}
	want := m.Digest()

	same := *m
	same.Outputs = []Output{{Name: "log", MediaType: "text/plain", Blob: blob("b")}, {Name: "timing", Blob: blob("d"), Volatile: true}, {Name: "model", Blob: blob("a")}}
	same.Outputs[2].Blob.Copy = 2
	same.Generation, same.Counts, same.Workflow = 2, map[string]int64{"x": 1}, Workflow{ID: "w"}
	if got := same.Digest(); got != want {
		t.Errorf("order, timings, copies and circumstances change the digest: %s, want %s", got, want)
	}
	other := *m
	other.Outputs = []Output{{Name: "model", Blob: blob("b")}, {Name: "log", Blob: blob("a")}}
	if other.Digest() == want {
		t.Error("other results have the same digest")
	}
}

func TestPutManifestRefuses(t *testing.T) {
	s := New(NewMemory(), "mem://test")
	for name, change := range map[string]func(*Manifest){
		"a key that is not its action's": func(m *Manifest) { m.ActionKeyInput = json.RawMessage(`{"stage":"other"}`) },
		"no action":                      func(m *Manifest) { m.ActionKeyInput = nil },
		"a stage that leaves the store":  func(m *Manifest) { m.Stage = "../../x" },
		"a blob without digest":          func(m *Manifest) { m.Outputs = []Output{{Name: "a"}} },
		"two outputs of one name":        func(m *Manifest) { m.Outputs = append(m.Outputs, m.Outputs[0]) },
		"an input that is no manifest":   func(m *Manifest) { m.Inputs = map[string]Ref{"x": {Stage: "tokens"}} },
		"a negative generation":          func(m *Manifest) { m.Generation = -1 },
	} {
		m, err := NewManifest(sample())
		if err != nil {
			t.Fatal(err)
		}
		m.Outputs = []Output{{Name: "a", Blob: Blob{Digest: digestOf(nil)}}}
		change(m)
		if _, err := s.PutManifest(t.Context(), m); err == nil {
			t.Errorf("%s was stored", name)
		}
	}
	for info := range s.backend.List(t.Context(), "") {
		t.Errorf("left %s", info.Key)
	}
}

func TestDocumentsOfANewerVersionAreRefused(t *testing.T) {
	s := New(NewMemory(), "mem://test")
	ctx := t.Context()
	m, err := NewManifest(sample())
	if err != nil {
		t.Fatal(err)
	}
	m.Version = ManifestVersion + 1
	if _, err := s.PutManifest(ctx, m); err != nil {
		t.Fatal(err)
	}
	var newer *NewerError
	if _, err := s.Manifest(ctx, m.Ref()); !errors.As(err, &newer) || newer.Version != ManifestVersion+1 || !errors.Is(err, ErrNewer) {
		t.Errorf("manifest: %v", err)
	}
	p := Pointer{Version: PointerVersion + 1, Name: "p"}
	if _, err := s.putPointer(ctx, &p, Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AcquirePointer(ctx, "p", "me"); !errors.Is(err, ErrNewer) {
		t.Errorf("pointer: %v", err)
	}
	if _, err := s.GC(ctx, GCOptions{}); !errors.Is(err, ErrNewer) {
		t.Errorf("gc: %v", err)
	}
}
