package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/workflows"
)

func TestADryRunNeverCallsPaidWorkFree(t *testing.T) {
	priced := map[string]datasets.EndpointParams{"judge": {Model: "j", PriceIn: 1, PriceOut: 2, MaxCostUSD: 20}}
	for name, tt := range map[string]struct {
		d         dryRun
		endpoints map[string]datasets.EndpointParams
		want      string
	}{
		"no endpoint is asked":                      {dryRun{}, priced, "nothing is paid for"},
		"a judge with a price":                      {dryRun{Unpriced: true}, priced, "0.00 USD or more"},
		"its cap":                                   {dryRun{Unpriced: true}, priced, "20.00 USD (max_cost_usd)"},
		"a judge without a price":                   {dryRun{Unpriced: true}, map[string]datasets.EndpointParams{"judge": {Model: "j"}}, "not known"},
		"a teacher whose questions can be foretold": {dryRun{Money: llm.Range{Low: 1, High: 2}}, priced, "1.00 to 2.00 USD"},
		"such a teacher, and a judge":               {dryRun{Money: llm.Range{Low: 1, High: 2}, Unpriced: true}, priced, "1.00 USD or more"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := tt.d.print(&out, workflows.Spec{Name: "s", Endpoints: tt.endpoints}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("want %q in:\n%s", tt.want, &out)
			}
		})
	}
}

func TestADryRunSaysAllThatWouldFailAtOnce(t *testing.T) {
	clearEnvironment(t)
	writeStudy(t, ".")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s is paid for", r.Method, r.URL)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(service.Close)
	t.Setenv("DRY_KEY", "wrong")
	sound, err := os.ReadFile("study.yaml")
	if err != nil {
		t.Fatal(err)
	}
	broken := string(sound) + `
endpoints:
  refusing: {base_url: ` + service.URL + `/v1, model: m, key_env: DRY_KEY, price_in: 1, price_out: 2}
  absent: {base_url: "http://127.0.0.1:1/v1", model: m}
benchmarks:
  longbench_chat: {path: nowhere/chat, judge: refusing}
  short_tasks: {results: "nowhere/{method}.json"}
`
	if err := os.WriteFile("broken.yaml", []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	dry := func(args ...string) (int, dryRun, string) {
		code, stdout, stderr := starterRun(t.Context(), append([]string{"run", "--dry-run", "--json", "--data", t.TempDir()}, args...)...)
		var d dryRun
		if err := json.Unmarshal([]byte(stdout), &d); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		return code, d, stderr
	}
	code, d, stderr := dry("study.yaml")
	if code != exitDone || len(d.Problems) > 0 || d.Seconds == 0 || d.Disk == 0 {
		t.Errorf("a sound study: exit %d, %q: %+v", code, stderr, d)
	}
	// Some things are wrong with what comes first, others with what builds on it, and some with one cell only.
	code, d, stderr = dry("broken.yaml", "--set", "documents.sources=[{name: gone, path: nowhere/docs, format: go}]", "--set", "tokens.mix=[{name: chats, path: nowhere/chats.jsonl}]",
		"--set", "study.methods=[{name: packing}, {name: huge, set: {model.hidden_size: 65536, model.intermediate_size: 1048576}}]")
	if code != exitFailed || !strings.Contains(stderr, "things to mend") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	both := []string{"huge/seed=1", "packing/seed=1"}
	for _, want := range []activities.Problem{
		{Stage: "documents", Message: "nowhere/docs", Cells: both},
		{Stage: "tokens", Message: "nowhere/chats.jsonl", Cells: both},
		{Stage: "questions", Message: "nowhere/chat", Cells: both},
		{Stage: "scores", Message: "nowhere/packing.json", Cells: both[1:]},
		{Stage: "scores", Message: "nowhere/huge.json", Cells: both[:1]},
		{Stage: "endpoint", Message: "check the key"},
	} {
		if !slices.ContainsFunc(d.Problems, func(p activities.Problem) bool {
			slices.Sort(p.Cells)
			return p.Stage == want.Stage && strings.Contains(p.Message, want.Message) && slices.Equal(p.Cells, want.Cells)
		}) {
			t.Errorf("%+v is not among %+v", want, d.Problems)
		}
	}
	if !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, "endpoint absent") && strings.Contains(w, "waits") }) {
		t.Errorf("an endpoint that is not there is not among %q", d.Warnings)
	}
	// What is sound up to the model shows what is wrong with that.
	_, d, _ = dry("study.yaml", "--set", "study.methods=[{name: packing}, {name: huge, set: {model.hidden_size: 65536, model.intermediate_size: 1048576}}]")
	if !slices.ContainsFunc(d.Problems, func(p activities.Problem) bool {
		return p.Stage == "checkpoint" && slices.Equal(p.Cells, both[:1]) && strings.Contains(p.Message, "memory")
	}) {
		t.Errorf("a model that does not fit is not among %+v", d.Problems)
	}
	blocked := func(f activities.Foreseen) bool { return f.Blocked && strings.HasPrefix(f.Cell, "packing") }
	if slices.ContainsFunc(d.Results, blocked) {
		t.Errorf("the other cell is not reached: %+v", d.Results)
	}
}
