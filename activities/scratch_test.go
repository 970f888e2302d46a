package activities

import (
	"os"
	"path/filepath"
	"testing"
)

func TestScratchOfDeadProcessesIsRemovedAndOfLivingOnesKept(t *testing.T) {
	root := t.TempDir()
	dead := filepath.Join(root, "process-dead")
	if err := os.MkdirAll(filepath.Join(dead, "checkpoint-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	living, release, err := OpenScratch(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead process's directory is still there: %v", err)
	}
	_, releaseOther, err := OpenScratch(root)
	if err != nil {
		t.Fatal(err)
	}
	defer releaseOther()
	if _, err := os.Stat(living); err != nil {
		t.Errorf("the living process's directory: %v", err)
	}
	release()
	if _, err := os.Stat(living); !os.IsNotExist(err) {
		t.Errorf("released, it is still there: %v", err)
	}
}
