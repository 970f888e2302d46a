package workflows_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/workflows"
)

// export copies the outputs of a run's call to a directory.
func (c *cluster) export(record *artifact.RunRecord, role string) string {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), role)
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	for _, call := range record.Stages {
		if call.Role != role {
			continue
		}
		m, err := c.store.Manifest(c.t.Context(), call.Ref)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, o := range m.Outputs {
			if err := c.store.FetchBlob(c.t.Context(), o.Blob, filepath.Join(dir, o.Name)); err != nil {
				c.t.Fatal(err)
			}
		}
		return dir
	}
	c.t.Fatalf("the run has no %s", role)
	return ""
}

// The README's first file of one's own: a model from a directory, its context extended, nothing held out, no tables chosen.
func TestAModelFromADirectoryIsExtendedTunedAndReported(t *testing.T) {
	c := newCluster(t)
	c.work(nil)
	_, record, err := c.finish(c.spec("study.methods=[{name: packing}]", "tokens.max_length=256", "model.max_position_embeddings=256"))
	if err != nil {
		t.Fatal(err)
	}
	dir := c.export(record, "tuned")
	text := fmt.Sprintf(`name: own
documents:
  sources: [{name: packages, path: %s, format: go}]
  near_duplicates: -1
tokenizer: {path: %[2]s}
model: {path: %[2]s, rope_theta_scale: 200}
tokens: {max_length: 1024}
train: {device: host}
predictions: {device: host}
`, c.docs, dir)
	spec, err := workflows.ParseSpec("own.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	result, record, err := c.finish(spec)
	if err != nil {
		t.Fatal(err)
	}
	config, err := llama.ReadConfig(c.export(record, "tuned"))
	if err != nil {
		t.Fatal(err)
	}
	if config.MaxPositions != 1024 || config.RopeTheta != 2e6 {
		t.Errorf("the tuned model has a context of %d and a base of %v", config.MaxPositions, config.RopeTheta)
	}
	study, err := activities.ReadStudy(t.Context(), c.store, result.Tables, record)
	if err != nil {
		t.Fatal(err)
	}
	if len(study.Problems) > 0 || len(study.Missing) > 0 || len(study.Cells) != 1 || len(study.Cells[0].LossShare) == 0 {
		t.Errorf("tables of %+v", study)
	}
}

// Whoever has instructions already needs no documents, no teacher and nothing held out.
func TestAStudyOnConversationsAloneIsReportedAndVerified(t *testing.T) {
	c := newCluster(t)
	c.work(nil)
	_, record, err := c.finish(c.spec("study.methods=[{name: packing}]"))
	if err != nil {
		t.Fatal(err)
	}
	dir := c.export(record, "tuned")
	chats := filepath.Join(t.TempDir(), "chats.jsonl")
	var lines strings.Builder
	for i := range 20 {
		fmt.Fprintf(&lines, `{"messages":[{"role":"user","content":"What is number %d?"},{"role":"assistant","content":"It is %s."}]}`+"\n", i, strings.Repeat("one more ", i))
	}
	if err := os.WriteFile(chats, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`name: chats
tokenizer: {path: %[1]s}
model: {path: %[1]s}
tokens: {max_length: 256, only_mix: true, mix: [{name: chats, path: %[2]s}]}
batches: {batch_size: 1}
train: {device: host}
study:
  methods:
    - {name: packing}
    - {name: naive, set: {batches.method: naive}}
`, dir, chats)
	spec, err := workflows.ParseSpec("chats.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	result, record, err := c.finish(spec)
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]int{}
	for _, call := range record.Stages {
		stages[call.Stage+" "+call.Role]++
	}
	if diff := cmp.Diff(map[string]int{"tokenizer ": 2, "tokens instructions": 2, "batches instructions": 2, "checkpoint base": 2, "checkpoint tuned": 2, "tables ": 1}, stages); diff != "" {
		t.Errorf("stages of a run on conversations:\n%s", diff)
	}
	study, err := activities.ReadStudy(t.Context(), c.store, result.Tables, record)
	if err != nil {
		t.Fatal(err)
	}
	if len(study.Problems) > 0 || len(study.Missing) > 0 || len(study.Cells) != 2 || len(study.Cells[0].LossShare) == 0 {
		t.Errorf("tables of %+v", study)
	}
	if diff := cmp.Diff([]reports.Count{{Name: "chats", N: 20}}, study.Data.Drawn); diff != "" {
		t.Error(diff)
	}
	if _, err := reports.RenderReport(study); err != nil {
		t.Error(err)
	}
	// Tables that are lost are made from the record, and what costs nothing is verified by making it again.
	call, err := workflows.RecordedTables(record)
	if err != nil {
		t.Fatal(err)
	}
	again, err := activities.GatherStudy(t.Context(), c.store, call, record, errors.New("lost"))
	if err != nil || len(again.Missing) > 0 || len(again.Cells) != 2 {
		t.Errorf("gathered again: %+v, %v", again, err)
	}
	v, err := (&activities.Activities{Store: c.store, OpenDevice: devices.Open, Scratch: t.TempDir()}).Verify(t.Context(), record, activities.VerifyOptions{Derived: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Findings) > 0 || len(v.Unchecked) != 2 { // the two trainings
		t.Errorf("findings %+v, unchecked %+v", v.Findings, v.Unchecked)
	}
}
