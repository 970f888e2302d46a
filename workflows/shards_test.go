package workflows_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/workflows"
)

const plantedKey = "sk-planted-in-a-workflow"

// slowTeacher counts requests and answers after a while.
func slowTeacher(t *testing.T, requests *atomic.Int64) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		var sent struct{ Messages []struct{ Content string } }
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || r.Header.Get("authorization") != "Bearer "+plantedKey {
			w.WriteHeader(401)
			fmt.Fprintf(w, `{"error":{"message":"the key %s is wrong"}}`, r.Header.Get("authorization"))
			return
		}
		time.Sleep(30 * time.Millisecond)
		text := "It is what it is, and it is " + fmt.Sprint(len(sent.Messages[0].Content))
		if strings.Contains(sent.Messages[0].Content, "1:") {
			text = "1: What is it?\n2: Why is it?\n3: Since when?"
		}
		w.Header().Set("content-type", "application/json")
		fmt.Fprintf(w, `{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":100,"completion_tokens":10}}`, text)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1"
}

// stageOf runs one stage's workflow and returns its result's manifest and how many runs it took.
func (c *cluster) stageOf(call activities.Call, during func()) (*artifact.Manifest, int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	run, err := c.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "stage-" + call.Stage + "-" + call.Key[:16], TaskQueue: workflows.QueueControl}, workflows.StageName, call)
	if err != nil {
		c.t.Fatal(err)
	}
	first := run.GetRunID() // Get goes on to the last
	if during != nil {
		during()
	}
	var ref artifact.Ref
	if err := run.Get(ctx, &ref); err != nil {
		c.t.Fatal(err)
	}
	runs, id := 0, first
	for ; id != ""; runs++ {
		next := ""
		for h := c.temporal.GetWorkflowHistory(ctx, run.GetID(), id, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); h.HasNext(); {
			e, err := h.Next()
			if err != nil {
				c.t.Fatal(err)
			}
			if strings.Contains(e.String(), plantedKey) {
				c.t.Errorf("the key is in event %d of run %d", e.EventId, runs)
			}
			if a := e.GetWorkflowExecutionContinuedAsNewEventAttributes(); a != nil {
				next = a.NewExecutionRunId
			}
		}
		id = next
	}
	m, err := c.store.Manifest(ctx, ref)
	if err != nil {
		c.t.Fatal(err)
	}
	return m, runs
}

// TestShardsGoOnOverContinuationsAndAStoppedWorker divides instructions into shards of two documents, two at once, and stops the
// worker while they are asked for: the result is that of one undisturbed activity, and no reply is paid for twice but those that were
// under way.
func TestShardsGoOnOverContinuationsAndAStoppedWorker(t *testing.T) {
	t.Setenv("TEACHER_KEY", plantedKey)
	var requests atomic.Int64
	whole, c := newCluster(t), newCluster(t)
	c.docs = whole.docs
	base := slowTeacher(t, &requests)
	sets := []string{"endpoints.mine.base_url=" + base, "endpoints.mine.model=m", "endpoints.mine.key_env=TEACHER_KEY", "endpoints.mine.concurrency=2", "instructions.teacher=mine",
		"endpoints.mine.price_in=1", "endpoints.mine.max_cost_usd=10"}
	made := func(c *cluster) activities.Call {
		a := &activities.Activities{Store: c.store, Scratch: t.TempDir()}
		spec := c.spec(sets...)
		stage := func(name string, params any, in map[string]artifact.Ref) activities.Call {
			raw, err := json.Marshal(params)
			if err != nil {
				t.Fatal(err)
			}
			call := activities.Call{Stage: name, Params: raw, Inputs: in}
			r, err := a.Resolve(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			call.Key = r.Key
			return call
		}
		run := func(call activities.Call) artifact.Ref {
			ref, err := a.Run(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			return ref
		}
		documents := run(stage("documents", spec.Documents, nil))
		tokenizer := run(stage("tokenizer", spec.Tokenizer, map[string]artifact.Ref{"documents": documents}))
		e := spec.Endpoints["mine"]
		return stage("instructions", datasets.InstructionsStageParams{InstructionsParams: spec.Instructions, Endpoint: &e}, map[string]artifact.Ref{"documents": documents, "tokenizer": tokenizer})
	}
	call := made(whole)
	whole.work(nil)
	want, runs := whole.stageOf(call, nil)
	if runs != 1 {
		t.Errorf("small work took %d runs", runs)
	}
	undisturbed := requests.Swap(0)

	small := func(a *activities.Activities) { a.ShardItems, a.ShardWindow = 2, 2 }
	stop := c.work(small)
	got, runs := c.stageOf(made(c), func() {
		for requests.Load() < undisturbed/2 {
			time.Sleep(5 * time.Millisecond)
		}
		stop()
		c.work(small)
	})
	if runs != 3 { // five shards of two documents
		t.Errorf("the stage took %d runs; it should have continued as new after each two shards", runs)
	}
	if n := requests.Load(); n < undisturbed || n > undisturbed+2 {
		t.Errorf("%d requests, undisturbed %d: more than what was under way was repeated", n, undisturbed)
	}
	digests := func(m *artifact.Manifest) map[string]string {
		d := map[string]string{"key": m.Key}
		for _, o := range m.Outputs {
			if !o.Volatile {
				d[o.Name] = o.Blob.Digest
			}
		}
		return d
	}
	if diff := cmp.Diff(digests(want), digests(got)); diff != "" {
		t.Error(diff)
	}
	t.Logf("%d requests, undisturbed %d; %d runs of the workflow", requests.Load(), undisturbed, runs)
}
