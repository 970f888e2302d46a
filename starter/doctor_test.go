package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/gpu/cuda"
	"github.com/longalign/longalign-go/testenv"
	"github.com/longalign/longalign-go/workflows"
)

func TestDoctorSaysWhatIsMissing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	ep := testenv.Shared(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer right" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":{"message":"no such key"}}`))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"length","message":{"role":"assistant","content":"Yes"}}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}`))
	}))
	t.Cleanup(service.Close)
	_, with := testenv.Namespace(t, ep, workflows.SearchAttributes)
	_, without := testenv.Namespace(t, ep, workflows.SearchAttributes[:1])
	clearEnvironment(t)
	writeStudy(t, ".")
	study, err := os.ReadFile("study.yaml")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "\nendpoints:\n  teacher: {base_url: " + service.URL + ", model: m, key_env: DOCTOR_KEY}\n"
	if err := os.WriteFile("asking.yaml", append(study, endpoint...), 0o600); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	for name, tt := range map[string]struct {
		key  string
		args []string
		code int
		want []string
	}{
		"a server that is down":             {args: []string{"--address", "127.0.0.1:1", "--store", "file://" + t.TempDir()}, code: exitFailed, want: []string{"failing  Temporal", "starter dev"}},
		"a namespace without attributes":    {args: []string{"--address", ep.Temporal, "--namespace", without, "--store", "file://" + t.TempDir()}, code: exitFailed, want: []string{"failing  search attributes", "temporal operator search-attribute create --namespace " + without}},
		"a namespace that is not there":     {args: []string{"--address", ep.Temporal, "--namespace", "nowhere", "--store", "file://" + t.TempDir()}, code: exitFailed, want: []string{"failing  namespace", "temporal operator namespace create"}},
		"queues without workers":            {args: []string{"--address", ep.Temporal, "--namespace", with, "--store", "file://" + t.TempDir()}, code: exitDone, want: []string{"warning  queue gpu", "worker --queues gpu", "ok       search attributes", "ok       store"}},
		"a store that cannot be written":    {args: []string{"--address", ep.Temporal, "--namespace", with, "--store", "file:///proc/longalign"}, code: exitFailed, want: []string{"failing  store", "rights to write"}},
		"no store at all":                   {args: []string{"--address", ep.Temporal, "--namespace", with}, code: exitFailed, want: []string{"failing  store", "--store"}},
		"an endpoint that refuses the key":  {key: "wrong", args: []string{"asking.yaml", "--address", ep.Temporal, "--namespace", with, "--store", "file://" + t.TempDir()}, code: exitFailed, want: []string{"failing  endpoint teacher", "check the key"}},
		"an endpoint whose key is not here": {args: []string{"asking.yaml", "--address", ep.Temporal, "--namespace", with, "--store", "file://" + t.TempDir()}, code: exitDone, want: []string{"warning  endpoint teacher", "DOCTOR_KEY"}},
		"an endpoint that answers":          {key: "right", args: []string{"asking.yaml", "--address", ep.Temporal, "--namespace", with, "--store", "file://" + t.TempDir()}, code: exitDone, want: []string{"ok       endpoint teacher"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCTOR_KEY", tt.key)
			code, out, stderr := starterRun(t.Context(), append([]string{"doctor", "--data", data}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit %d, want %d: %s%s", code, tt.code, out, stderr)
			}
			contains(t, name, out, tt.want...)
			if tt.key != "" && strings.Contains(out+stderr, tt.key+"\"") {
				t.Error("the key is printed")
			}
		})
	}
}

func TestDoctorTakesNoOffenceAtACardInUse(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want verdict
	}{
		"in use":            {&cuda.Error{Kind: cuda.Busy, Op: "open", Text: "process 7 holds GPU-1"}, works},
		"a driver too old":  {fmt.Errorf("this machine: %w", &cuda.Error{Kind: cuda.WrongDriver, Op: "start the driver"}), failing},
		"some other reason": {errors.New("no"), failing},
	} {
		d := &doctor{}
		if d.noDevice(tt.err); len(d.found) != 1 || d.found[0].Verdict != tt.want || !strings.Contains(d.found[0].Detail, tt.err.Error()) {
			t.Errorf("%s: %+v", name, d.found)
		}
	}
}

func TestDoctorJudgesSpace(t *testing.T) {
	for name, tt := range map[string]struct {
		free int64
		want verdict
	}{"none": {noSpace - 1, failing}, "little": {littleSpace - 1, warns}, "enough": {littleSpace, works}} {
		d := &doctor{}
		if d.space("disk", "/x", tt.free); len(d.found) != 1 || d.found[0].Verdict != tt.want || tt.want != works && d.found[0].Do+d.found[0].Detail == "" {
			t.Errorf("%s: %+v", name, d.found)
		}
	}
}
