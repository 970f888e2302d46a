package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPromptsTravelWithTheExperiment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "prompts")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"prompts", dir}, nil, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	path := filepath.Join(dir, "answer", "en.txt")
	if err := os.WriteFile(path, []byte("{{.Document}}\n\nMy own words: {{.Question}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec, err := readSpec("examples/demo.yaml", []string{"instructions.prompts_dir=" + dir})
	if err != nil {
		t.Fatal(err)
	}
	if p := spec.Instructions; !strings.Contains(p.Prompts["answer/en"], "My own words") || p.PromptsDir != "" || len(p.Prompts) != 10 {
		t.Errorf("%+v", p)
	}
	_, err = readSpec("examples/demo.yaml", []string{"instructions.prompts_dir=" + filepath.Join(dir, "none")})
	if err == nil || exitCode(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), "instructions.prompts_dir") {
		t.Errorf("a directory that is not there: %v", err)
	}
}
