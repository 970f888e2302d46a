package workflows_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/llama"
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
