package workflows_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/workflows"
)

var record = flag.Bool("record", false, "record the histories in testdata/histories anew")

const histories = "testdata/histories"

// TestRecordedHistoriesReplay replays what runs of this and earlier versions did. When it fails, runs that were started
// before the change would break: guard the change with workflow.GetVersion. Histories are recorded by
//
//	go test ./workflows -run TestRecord -record
//
// which overwrites those of the same names; see testdata/README.md.
func TestRecordedHistoriesReplay(t *testing.T) {
	files, err := filepath.Glob(histories + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 6 {
		t.Fatalf("only %d histories", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			r := replayer{worker.NewWorkflowReplayer()}
			workflows.Register(r, workflows.QueueControl, &activities.Activities{})
			if err := r.ReplayWorkflowHistoryFromJSONFile(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), file); err != nil {
				t.Error(err)
			}
		})
	}
}

// replayer takes what Register gives, and leaves out the activities: they are not replayed.
type replayer struct{ worker.WorkflowReplayer }

func (replayer) RegisterActivity(any)                                         {}
func (replayer) RegisterActivityWithOptions(any, activity.RegisterOptions)    {}
func (replayer) RegisterDynamicActivity(any, activity.DynamicRegisterOptions) {}
func (replayer) RegisterNexusService(*nexus.Service)                          {}

// places are what a recorded history may not tell.
var places = regexp.MustCompile(`(/tmp|/root|/home|/Users|/work|/var)/|[A-Z]:\\`)

func TestHistoriesTellNothingOfTheMachineTheyWereRecordedOn(t *testing.T) {
	files, err := filepath.Glob(histories + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(text, &tree); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		each(tree, func(key, value string) string {
			if data, err := base64.StdEncoding.DecodeString(value); err == nil && key == "data" {
				value = string(data)
			}
			if found := places.FindString(value); found != "" {
				t.Errorf("%s: %s holds a path: %.120s", file, key, value)
			}
			if key == "identity" && value != "worker" {
				t.Errorf("%s: identity %q", file, value)
			}
			return ""
		})
		if len(text) > 300<<10 {
			t.Errorf("%s has %d bytes", file, len(text))
		}
	}
}

// each calls f with every text value, and puts what it returns in its place unless that is empty.
func each(tree any, f func(key, value string) string) {
	switch v := tree.(type) {
	case []any:
		for _, e := range v {
			each(e, f)
		}
	case map[string]any:
		for key, e := range v {
			if s, ok := e.(string); !ok {
				each(e, f)
			} else if s = f(key, s); s != "" {
				v[key] = s
			}
		}
	}
}

func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("records histories with -record")
	}
	out, err := filepath.Abs(histories)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	t.Chdir(t.TempDir()) // paths in histories are relative
	c.docs = "corpus"
	writeCorpus(t, c.docs)
	c.work(nil)

	_, done, err := c.finish(c.spec())
	if err != nil {
		t.Fatal(err)
	}
	c.save(out, "study", done.ID, done.RunID)
	for _, stage := range []string{"documents", "checkpoint"} {
		for _, call := range done.Stages {
			if call.Stage == stage && call.Role != "base" {
				m, err := c.store.Manifest(t.Context(), call.Ref)
				if err != nil {
					t.Fatal(err)
				}
				c.save(out, "stage-"+stage, m.Workflow.ID, m.Workflow.RunID)
				break
			}
		}
	}
	_, again, err := c.finish(c.spec())
	if err != nil {
		t.Fatal(err)
	}
	c.save(out, "study-reused", again.ID, again.RunID)
	result, partly, err := c.finish(c.spec("study.methods.1.set={train.device: abacus}"))
	if err != nil || len(result.Failed) != 1 {
		t.Fatalf("%v, %v", result, err)
	}
	c.save(out, "study-one-cell-failed", partly.ID, partly.RunID)
	_, failed, err := c.finish(c.spec("tokens.max_length=4"))
	if err == nil {
		t.Fatal("it did not fail")
	}
	c.save(out, "study-failed", failed.ID, failed.RunID)

	run := c.start(c.spec("study.methods=[{name: packing}]", "batches.epochs=300"))
	for c.step(run) < 3 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.temporal.CancelWorkflow(t.Context(), run.GetID(), ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := run.Get(ctx, nil); err == nil {
		t.Fatal("it was not cancelled")
	}
	c.save(out, "study-cancelled", run.GetID(), run.GetRunID())
}

// save writes a run's history without names of this machine.
func (c *cluster) save(dir, name, id, runID string) {
	c.t.Helper()
	var h historypb.History
	for events := c.temporal.GetWorkflowHistory(c.t.Context(), id, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		e, err := events.Next()
		if err != nil {
			c.t.Fatal(err)
		}
		h.Events = append(h.Events, e)
	}
	text, err := protojson.Marshal(&h)
	if err != nil {
		c.t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		c.t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		c.t.Fatal(err)
	}
	each(tree, func(key, value string) string {
		switch key {
		case "identity":
			return "worker"
		case "namespace", "parentWorkflowNamespace", "workflowNamespace":
			return "default"
		}
		return strings.ReplaceAll(value, host, "host")
	})
	if text, err = json.Marshal(tree); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644); err != nil {
		c.t.Fatal(err)
	}
}
