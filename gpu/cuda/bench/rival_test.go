package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asBench makes the test's program act as bench, whom the rival asks for the pack.
const asBench = "LONGALIGN_TEST_AS_BENCH"

func TestMain(m *testing.M) {
	if os.Getenv(asBench) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// pythonWithTorch returns an interpreter that has PyTorch, of any version and without a card, or skips.
func pythonWithTorch(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import torch").Run() == nil {
			return python
		}
	}
	t.Skip("no python3 with PyTorch")
	return ""
}

func TestTheRivalTakesAStepOnTheSamePackWithoutACard(t *testing.T) {
	python := pythonWithTorch(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"keeping everything":     {nil, []string{"1 sequences in 192 tokens", "kept: all", "tokens/s", "model FLOP utilisation"}},
		"keeping inputs only":    {[]string{"--keep", "inputs"}, []string{"kept: inputs", "tokens/s"}},
		"its ways of attention":  {[]string{"--only", "attention"}, []string{"a call a sequence", "one sequence", "ms backward"}},
		"a shape nobody has":     {[]string{"--shape", "70b"}, []string{"invalid choice"}},
		"a card that is missing": {[]string{"--device", "cuda"}, []string{"PyTorch finds no card"}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(python, append([]string{"rival.py", "--device", "cpu", "--shape", "tiny", "--tokens", "192", "--steps", "1"}, tt.args...)...)
			cmd.Env = append(os.Environ(), "BENCH="+self, asBench+"=1", "CUDA_VISIBLE_DEVICES=", "PYTHONDONTWRITEBYTECODE=1")
			out, _ := cmd.CombinedOutput() // the last two end with an error
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		})
	}
}
