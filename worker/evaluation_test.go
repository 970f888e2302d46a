package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/testenv"
	"github.com/longalign/longalign-go/workflows"
)

// asWorker makes the test program the worker: one to be killed cannot live in the test's own process.
const asWorker = "LONGALIGN_TEST_AS_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// service is an OpenAI-compatible language model whose replies follow from what it is asked. It counts, and at one of its requests it
// holds its reply back and says so: then the worker can be killed with requests in flight.
type service struct {
	*httptest.Server
	reply   func(user string) string
	counted func(user string) bool

	mu       sync.Mutex
	asked    map[string]int
	total    int
	holdFrom int           // the counted request from which replies are held back; 0: none
	reached  chan struct{} // closed then
	release  chan struct{}
}

func newService(t *testing.T, holdFrom int, counted func(string) bool, reply func(string) string) *service {
	s := &service{reply: reply, counted: counted, asked: map[string]int{}, holdFrom: holdFrom, reached: make(chan struct{}), release: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

func (s *service) answer(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Messages []struct{ Content string }
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Messages) == 0 {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	user := body.Messages[len(body.Messages)-1].Content
	if s.counted(user) {
		s.mu.Lock()
		s.asked[user]++
		s.total++
		if s.total == s.holdFrom {
			close(s.reached)
		}
		held := s.holdFrom > 0 && s.total >= s.holdFrom
		s.mu.Unlock()
		if held {
			<-s.release
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": "x", "object": "chat.completion", "model": "m",
		"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": s.reply(user)}}},
		"usage":   map[string]any{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
	})
}

// goOn lets the held replies go, into connections that are broken by now.
func (s *service) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holdFrom = 0
	close(s.release)
}

// repeated is how many requests were made beyond the n that are needed.
func (s *service) repeated(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total - n
}

func hashOf(s string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, s)
	return h.Sum64()
}

// rows is the number of samples of each of the two datasets of the evaluation.
const rows = 30

// benchmarkArchive has LongBench's layout, with questions of our own; their answers may be long, so that a killing finds them unfinished.
func benchmarkArchive(t *testing.T) []byte {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	add := func(name, text string) {
		w, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("dataset2prompt.json", `{"qasper":"{context} {input}","gov_report":"{context} Sum up {input}"}`)
	add("dataset2maxlen.json", `{"qasper":200,"gov_report":200}`)
	for _, name := range []string{"qasper", "gov_report"} {
		var b strings.Builder
		for i := range rows {
			fmt.Fprintf(&b, `{"_id":"%[1]s-%[2]d","input":"row %[2]d of %[1]s?","context":"The queue %[2]d is %[3]d long.","answers":["%[3]d"],"length":6,"dataset":"%[1]s","language":"en","all_classes":null}`+"\n", name, i, i*i)
		}
		add("data/"+name+".jsonl", b.String())
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

const evaluationSpec = `name: killed
documents: {sources: [{name: packages, path: %[1]s, format: go}], held_out: 0.4, near_duplicates: -1}
tokenizer: {vocab_size: 300}
tokens: {max_length: 768}
model: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 768}
batches: {method: packing, batch_size: 1, epochs: 1}
train: {learning_rate: 1e-2, device: host}
predictions: {max_new_tokens: 2, generate: 1, max_instances: 2, device: host}
endpoints:
  model: {base_url: %[2]s, model: model-2026-01-31, concurrency: 3}
study: {seeds: [1], methods: [{name: packing}]}
tables: {kind: demo}
benchmarks:
  device: host
  longbench: {path: %[3]s, datasets: [qasper, gov_report], judge: offline}
`

// evaluation is one study in a namespace and a store of its own, by workers that can be killed.
type evaluation struct {
	t        *testing.T
	temporal client.Client
	store    *artifact.Store
	env      []string
	dir      string
	worker   *testenv.Child
	run      client.WorkflowRun
}

// startEvaluation starts the study and a worker. The benchmark lies in the bucket, as an archive.
func startEvaluation(t *testing.T, s *service, set string) *evaluation {
	t.Helper()
	ep := testenv.Shared(t)
	env, err := ep.Env()
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range env { // the test reads the store too
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value)
		}
	}
	e := &evaluation{t: t, dir: t.TempDir()}
	var namespace string
	e.temporal, namespace = testenv.Namespace(t, ep, workflows.SearchAttributes)
	uri := ep.StoreURI(testenv.Unique(t) + "/artifacts")
	if e.store, err = artifact.Open(t.Context(), uri); err != nil {
		t.Fatal(err)
	}
	archive := benchmarkArchive(t)
	files, err := artifact.Open(t.Context(), strings.TrimSuffix(uri, "artifacts")+"files")
	if err == nil {
		_, err = files.Backend().Put(t.Context(), "data.zip", bytes.NewReader(archive), int64(len(archive)), artifact.Condition{})
	}
	if err != nil {
		t.Fatal(err)
	}
	e.env = append(os.Environ(), append(env, asWorker+"=1", "TEMPORAL_NAMESPACE="+namespace, "LONGALIGN_STORE="+uri)...)
	corpus := filepath.Join(e.dir, "corpus")
	for i, noun := range []string{"queue", "river", "clock", "garden", "ladder", "market", "window", "signal", "harbor", "engine"} {
		path := filepath.Join(corpus, noun, noun+".go")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("// Package %[1]s keeps a %[1]s.\npackage %[1]s\n\n// Open makes the %[1]s number %[2]d ready, and returns how many are left.\nfunc Open(%[1]s int) int {\n\treturn %[1]s + %[2]d\n}\n", noun, i)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := workflows.ParseSpec("study.yaml", fmt.Appendf(nil, evaluationSpec, corpus, s.URL, files.URI()+"/data.zip"), []string{set})
	if err != nil {
		t.Fatal(err)
	}
	e.startWorker()
	t.Cleanup(func() { e.worker.Kill() }) // it may have been killed already
	e.run, err = e.temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "evaluation", TaskQueue: workflows.QueueControl}, workflows.StudyName, workflows.StudyInput{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *evaluation) startWorker() {
	e.t.Helper()
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command(self, "--stdin", "--scratch", filepath.Join(e.dir, "scratch"))
	cmd.Env = e.env
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	if e.worker, err = testenv.StartChild(ctx, "worker", cmd, ""); err != nil {
		e.t.Fatal(err)
	}
}

// kill is kill -9, and another worker in its place.
func (e *evaluation) kill() {
	e.t.Helper()
	if err := e.worker.Kill(); err != nil {
		e.t.Fatal(err)
	}
	e.startWorker()
}

// outputs waits for the end and returns what the stages of the evaluation made, by stage and file: their digests.
func (e *evaluation) outputs() map[string]string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 4*time.Minute)
	defer cancel()
	var done workflows.StudyResult
	if err := e.run.Get(ctx, &done); err != nil || len(done.Failed) > 0 {
		e.t.Fatalf("%v, failed: %v", err, done.Failed)
	}
	all := map[string]string{}
	for _, stage := range []string{"questions", "predictions", "judgments", "scores"} {
		for _, m := range e.manifests(stage) {
			for _, o := range m.Outputs {
				if !o.Volatile {
					all[stage+"/"+m.Key+"/"+o.Name] = o.Blob.Digest
				}
			}
		}
	}
	return all
}

// manifests are those of a stage of the evaluation.
func (e *evaluation) manifests(stage string) (all []*artifact.Manifest) {
	e.t.Helper()
	for ref, r := range e.store.Manifests(e.t.Context(), stage) {
		if r.Err != nil {
			e.t.Fatalf("%s: %v", ref, r.Err)
		}
		if strings.Contains(string(r.Manifest.Params), `"benchmark"`) {
			all = append(all, r.Manifest)
		}
	}
	return all
}

// answered waits until some answers are journaled and not all, and returns their number.
func (e *evaluation) answered() int64 {
	e.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for p, err := range e.store.Pointers(e.t.Context(), activities.AnswersPointerName("")) {
			var state struct{ Done int64 }
			if err == nil && len(p.Value) > 0 {
				err = json.Unmarshal(p.Value, &state)
			}
			if err != nil {
				e.t.Fatal(err)
			}
			if state.Done > 0 {
				return state.Done
			}
		}
	}
	e.t.Fatal("no answer was journaled")
	return 0
}

// The worker is killed while the engine answers, and again while a judge rates: both go on at the sample, and the outcome is that of an
// undisturbed run.
func TestAKilledEvaluationByTheEngineGoesOnAtTheSample(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	const judged = 2 * rows // two datasets, one rating an answer, as in the paper
	aboutRows := func(user string) bool { return strings.Contains(user, "row ") }
	rate := func(user string) string { return fmt.Sprintf("Compared. [[%d]]", 1+hashOf(user)%3) }
	calm := startEvaluation(t, newService(t, 0, aboutRows, rate), "benchmarks.longbench.judge=model")
	judge := newService(t, judged/2, aboutRows, rate)
	rough := startEvaluation(t, judge, "benchmarks.longbench.judge=model")

	saved := rough.answered()
	rough.kill()
	<-judge.reached
	rough.kill()
	judge.goOn()
	if diff := cmp.Diff(calm.outputs(), rough.outputs()); diff != "" {
		t.Error("the outcome is another: ", diff)
	}
	var attempts []int64
	o, ok := rough.manifests("predictions")[0].Output("attempts.json")
	if !ok {
		t.Fatal("the attempts are not recorded")
	}
	if err := rough.store.ReadJSON(t.Context(), o.Blob, &attempts); err != nil {
		t.Fatal(err)
	}
	if len(attempts) != 2 || attempts[0] != 0 || attempts[1] < saved || attempts[1] >= 2*rows {
		t.Errorf("the attempts began with %v answers; %d were saved at the kill", attempts, saved)
	}
	if n := judge.repeated(judged); n < 1 || n > 3 {
		t.Errorf("%d ratings were asked for again; 3 requests may be in flight", n)
	}
	t.Logf("killed at %d of %d answers, resumed at %d; %d of %d ratings asked for again", saved, 2*rows, attempts[1], judge.repeated(judged), judged)
}

// The worker is killed while an endpoint answers: what was in flight is asked again, and nothing else.
func TestAKilledEvaluationByAnEndpointAsksOnlyWhatWasInFlight(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	all := func(string) bool { return true }
	reply := func(user string) string { return fmt.Sprint("about ", hashOf(user)%1000) }
	calm := startEvaluation(t, newService(t, 0, all, reply), "benchmarks.predictor=model")
	model := newService(t, rows, all, reply)
	rough := startEvaluation(t, model, "benchmarks.predictor=model")
	<-model.reached
	rough.kill()
	model.goOn()
	if diff := cmp.Diff(calm.outputs(), rough.outputs()); diff != "" {
		t.Error("the outcome is another: ", diff)
	}
	if n := model.repeated(2 * rows); n < 1 || n > 3 {
		t.Errorf("%d questions were asked again; 3 may be in flight", n)
	}
	if most := slices.Max(slices.Collect(maps.Values(model.asked))); most > 2 || len(model.asked) != 2*rows {
		t.Errorf("%d questions, one of them asked %d times", len(model.asked), most)
	}
	m := rough.manifests("predictions")[0]
	if got := m.Counts["replies journaled before"]; got < rows-4 {
		t.Errorf("%d replies came from the journal", got)
	}
	t.Logf("%d of %d questions asked again; counts %v", model.repeated(2*rows), 2*rows, m.Counts)
}
