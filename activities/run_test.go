package activities

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func TestADamagedRecordOfAnEarlierExecutionDoesNotStopTheNext(t *testing.T) {
	dir := t.TempDir()
	store, err := artifact.Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	a := &Activities{Store: store}
	update := func(run string) error {
		return a.recordRun(t.Context(), RunUpdate{ID: RunID{WorkflowID: "demo", RunID: run}, Name: "demo", Cells: []string{"a"}, Status: artifact.Running, Started: time.Unix(1, 0)})
	}
	if err := update("first"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "runs", "demo", "first.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	var corrupt *artifact.CorruptError
	if err := update("first"); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "start the same run again") {
		t.Errorf("an execution's own damaged record: %v, want an error that says what to do", err)
	}
	if err := update("second"); err != nil {
		t.Fatal(err)
	}
	if r, err := store.Run(t.Context(), "demo"); err != nil || r.RunID != "second" {
		t.Errorf("latest record %+v, %v", r, err)
	}
}
