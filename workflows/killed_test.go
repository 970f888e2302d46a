package workflows_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/testenv"
	"github.com/longalign/longalign-go/workflows"
)

// killedVariable makes this test program a worker, which is killed: it holds a killedWorker.
const killedVariable = "LONGALIGN_TEST_KILLED_WORKER"

// killedWorker says whom a worker process serves.
type killedWorker struct{ Address, Namespace, Store, Scratch string }

func TestMain(m *testing.M) {
	if raw := os.Getenv(killedVariable); raw != "" {
		if err := serveUntilKilled(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveUntilKilled(raw string) error {
	var k killedWorker
	if err := json.Unmarshal([]byte(raw), &k); err != nil {
		return err
	}
	temporal, err := client.Dial(client.Options{HostPort: k.Address, Namespace: k.Namespace})
	if err != nil {
		return err
	}
	store, err := artifact.Open(context.Background(), k.Store)
	if err != nil {
		return err
	}
	a := &activities.Activities{Store: store, OpenDevice: devices.Open, Scratch: k.Scratch, Temporal: temporal, ShardItems: 1, ShardWindow: 3}
	for _, q := range workflows.Queues {
		w := worker.New(temporal, q, worker.Options{DisableRegistrationAliasing: true, DeadlockDetectionTimeout: 10 * time.Second, DisableWorkflowWorker: q != workflows.QueueControl})
		workflows.Register(w, q, a)
		if err := w.Start(); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, os.Stdin) // ends with the test, if it is not killed before
	return err
}

// output is what a process wrote.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write writes.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// TestAKilledWorkerLosesOnlyWhatWasUnderWay kills worker processes by SIGKILL: one while documents are read, one while a teacher that counts is asked, one while
// documents are tokenized, one while epochs are planned. Work is divided as finely as it can be, and its workflows continue as new
// after three shards each. The results are those of one undisturbed activity, and the teacher's key is nowhere.
func TestAKilledWorkerLosesOnlyWhatWasUnderWay(t *testing.T) {
	t.Setenv("TEACHER_KEY", plantedKey)
	var requests atomic.Int64
	base := slowTeacher(t, &requests)
	c := newCluster(t)
	var logs output
	start := func() (kill func()) {
		k := killedWorker{testenv.Shared(t).Temporal, c.namespace, c.store.URI(), t.TempDir()}
		raw, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedVariable+"="+string(raw))
		cmd.Stdout, cmd.Stderr = &logs, &logs
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killed := false
		kill = func() {
			if !killed {
				killed = true
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed
				_ = stdin.Close()
			}
		}
		t.Cleanup(kill)
		return kill
	}

	spec := c.spec("endpoints.mine.base_url="+base, "endpoints.mine.model=m", "endpoints.mine.key_env=TEACHER_KEY", "endpoints.mine.concurrency=2", "instructions.teacher=mine",
		"endpoints.mine.price_in=1", "endpoints.mine.max_cost_usd=10")
	whole, err := artifact.Open(t.Context(), "mem://"+t.Name())
	if err != nil {
		t.Fatal(err)
	}
	alone := &activities.Activities{Store: whole, Scratch: t.TempDir()}
	parts := &activities.Activities{Store: c.store, Scratch: t.TempDir()}
	// call resolves a stage for a store.
	call := func(a *activities.Activities, stage string, params any, in map[string]artifact.Ref) activities.Call {
		t.Helper()
		raw, err := json.Marshal(params)
		if err != nil {
			t.Fatal(err)
		}
		call := activities.Call{Stage: stage, Params: raw, Inputs: in}
		r, err := a.Resolve(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		call.Key = r.Key
		return call
	}
	makeAlone := func(stage string, params any, in map[string]artifact.Ref) *artifact.Manifest {
		t.Helper()
		ref, err := alone.Run(t.Context(), call(alone, stage, params, in))
		if err != nil {
			t.Fatal(err)
		}
		m, err := whole.Manifest(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	both := func(stage string, params any, in map[string]artifact.Ref) artifact.Ref {
		ref := makeAlone(stage, params, in).Ref()
		if _, err := parts.Run(t.Context(), call(parts, stage, params, in)); err != nil {
			t.Fatal(err)
		}
		return ref
	}
	// killed makes a result in shards, with a worker that is killed when enough is true, and compares it.
	killed := func(stage string, params any, in map[string]artifact.Ref, enough func() bool) *artifact.Manifest {
		t.Helper()
		kill := start()
		got, runs := c.stageOf(call(parts, stage, params, in), func() {
			for deadline := time.Now().Add(time.Minute); !enough(); {
				if time.Now().After(deadline) {
					t.Fatalf("%s: the worker has not come far enough in a minute: %s", stage, &logs.b)
				}
				time.Sleep(2 * time.Millisecond)
			}
			kill()
			start()
		})
		alone.ShardItems = 1 // as many files
		want := makeAlone(stage, params, in)
		if diff := cmp.Diff(blobs(want), blobs(got)); diff != "" {
			t.Errorf("%s: %s", stage, diff)
		}
		if runs < 2 {
			t.Errorf("%s: the workflow took %d runs; it should have continued as new", stage, runs)
		}
		t.Logf("%s: %d runs of the workflow", stage, runs)
		return got
	}
	shards := func(stage string) (n int) {
		for range c.store.Manifests(t.Context(), activities.ShardName(stage)) {
			n++
		}
		return n
	}

	documents := killed("documents", spec.Documents, nil, func() bool { return shards("documents") >= 2 }).Ref()
	tokenizer := both("tokenizer", spec.Tokenizer, map[string]artifact.Ref{"documents": documents})
	in := map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer}
	endpoint := spec.Endpoints["mine"]
	teacher := datasets.InstructionsStageParams{InstructionsParams: spec.Instructions, Endpoint: &endpoint}
	makeAlone("instructions", teacher, in)
	undisturbed := requests.Swap(0)
	m := killed("instructions", teacher, in, func() bool { return requests.Load() >= undisturbed/2 })
	if n := requests.Load(); n < undisturbed || n > undisturbed+2 { // two are under way at once
		t.Errorf("%d requests, undisturbed %d: more than what was under way was repeated", n, undisturbed)
	}
	t.Logf("%d requests, undisturbed %d; %d counted as repeated", requests.Load(), undisturbed, m.Counts["requests repeated"])

	pretraining := datasets.TokensStageParams{FromDocuments: true}
	pretraining.MaxLength = 64
	tokens := killed("tokens", pretraining, in, func() bool { return shards("tokens") >= 2 })
	plans := datasets.BatchesParams{Block: 5, BatchSize: 2, MaxLength: 64, Epochs: 3}
	killed("batches", plans, map[string]artifact.Ref{"tokens": tokens.Ref()}, func() bool { return shards("batches") >= 4 })

	c.wrongKey(base, teacher, in)
	logs.mu.Lock()
	defer logs.mu.Unlock()
	if strings.Contains(logs.b.String(), plantedKey) {
		t.Error("the key is in a worker's log")
	}
	c.searchStore(plantedKey)
}

// blobs are the digests of a result's lasting outputs.
func blobs(m *artifact.Manifest) map[string]string {
	digests := map[string]string{"key": m.Key}
	for _, o := range m.Outputs {
		if !o.Volatile {
			digests[o.Name] = o.Blob.Digest
		}
	}
	return digests
}

// wrongKey asks with another key, which the service repeats in its answer, and looks for it in the failure and the history.
func (c *cluster) wrongKey(base string, p datasets.InstructionsStageParams, in map[string]artifact.Ref) {
	c.t.Helper()
	const wrong = plantedKey + "-and-wrong"
	path := filepath.Join(c.t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(wrong+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	e := *p.Endpoint
	e.KeyEnv, e.KeyFile, e.Model = "", path, "other"
	p.Endpoint = &e
	raw, err := json.Marshal(p)
	if err != nil {
		c.t.Fatal(err)
	}
	a := &activities.Activities{Store: c.store, Scratch: c.t.TempDir()}
	call := activities.Call{Stage: "instructions", Params: raw, Inputs: in}
	r, err := a.Resolve(c.t.Context(), call)
	if err != nil {
		c.t.Fatal(err)
	}
	call.Key = r.Key
	run, err := c.temporal.ExecuteWorkflow(c.t.Context(), client.StartWorkflowOptions{ID: "wrong-key", TaskQueue: workflows.QueueControl}, workflows.StageName, call)
	if err != nil {
		c.t.Fatal(err)
	}
	err = run.Get(c.t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "key") || strings.Contains(err.Error(), plantedKey) {
		c.t.Errorf("the failure is %v", err)
	}
	for h := c.temporal.GetWorkflowHistory(c.t.Context(), "wrong-key", "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); h.HasNext(); {
		event, err := h.Next()
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(event.String(), plantedKey) {
			c.t.Errorf("the key is in event %d", event.EventId)
		}
	}
}

// searchStore looks for a secret in every object of the store, compressed ones too.
func (c *cluster) searchStore(secret string) {
	c.t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer z.Close()
	objects, compressed := 0, 0
	for info, err := range c.store.Backend().List(c.t.Context(), "") {
		if err != nil {
			c.t.Fatal(err)
		}
		r, _, err := c.store.Backend().Get(c.t.Context(), info.Key)
		if err != nil {
			c.t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil {
			c.t.Fatal(err)
		}
		objects++
		if plain, err := z.DecodeAll(data, nil); err == nil && len(data) > 0 {
			compressed++
			data = plain
		}
		if bytes.Contains(data, []byte(secret)) || strings.Contains(info.Key, secret) {
			c.t.Errorf("the key is in %s", info.Key)
		}
	}
	if objects < 50 || compressed < 10 {
		c.t.Errorf("looked at %d objects, %d of them compressed: that cannot be all", objects, compressed)
	}
}
