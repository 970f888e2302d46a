package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/testenv/refdata"
)

func TestAPromptFromAFileIsThatFromTheCommandLine(t *testing.T) {
	model := refdata.Path(t, "cases", "stories260K")
	file := filepath.Join(t.TempDir(), "prompt.txt")
	prompt := "Lily and Tom went to the park.\n"
	if err := os.WriteFile(file, []byte(prompt), 0o600); err != nil {
		t.Fatal(err)
	}
	generate := func(args ...string) string {
		code, out, stderr := starterRun(t.Context(), append([]string{"generate", "--model", model, "--max-new-tokens", "12", "--device", "host"}, args...)...)
		var got struct{ Text string }
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || got.Text == "" {
			t.Fatalf("exit %d: %s %s", code, out, stderr)
		}
		return got.Text
	}
	if given, read := generate("--prompt", prompt), generate("--prompt-file", file); given != read {
		t.Errorf("%q from the command line, %q from the file", given, read)
	}
}

func TestPromptsAreReadWhole(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	book := strings.Repeat("It was a dark night.\n", 10000) // more than an argument may be
	for name, tt := range map[string]struct {
		path, stdin, want, err string
	}{
		"a file":                   {path: file("book", book), want: book},
		"standard input":           {path: "-", stdin: book, want: book},
		"a file that is not there": {path: filepath.Join(dir, "none"), err: "no such file"},
		"an empty file":            {path: file("empty", ""), err: "is empty"},
		"a file that is no text":   {path: file("bytes", "\xff\xfe"), err: "not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readPrompt(strings.NewReader(tt.stdin), tt.path)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || got != tt.want {
				t.Errorf("%d bytes, %v; want %d and %q", len(got), err, len(tt.want), tt.err)
			}
		})
	}
}
