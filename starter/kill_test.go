package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/longalign/longalign-go/gpu/train"
)

// commandVariable makes this test binary the command line, so that a test can kill it.
const commandVariable = "LONGALIGN_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandVariable) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// A training whose process is killed without warning, again and again and wherever it happens to be, ends with the bytes
// of one that was left alone, and with each step once in its curve.
func TestTrainingSurvivesKillNine(t *testing.T) {
	model, packs := tinyTraining(t)
	whole, killed := t.TempDir(), t.TempDir()
	command := func(out string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), os.Args[0], "train", "--model", model, "--packs", packs, "--steps", "150", "--packs-per-step", "2",
			"--lr", "1e-3", "--checkpoint-every", "1", "--device", "host", "--resume", "--out", out)
		c.Env = append(os.Environ(), commandVariable+"=1")
		return c
	}
	began := time.Now()
	if out, err := command(whole).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(began)
	kills, taken := 0, 0
	for try := 0; ; try++ {
		c := command(killed)
		var errs bytes.Buffer
		c.Stderr = &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var timer *time.Timer
		if kills < 5 && try < 20 {
			timer = time.AfterFunc(time.Duration((0.1+0.3*rand.Float64())*float64(took)), func() { _ = c.Process.Kill() })
		}
		err := c.Wait()
		if timer != nil {
			timer.Stop()
		}
		if err == nil {
			break
		}
		if c.ProcessState.ExitCode() != -1 {
			t.Fatalf("%v\n%s", err, errs.Bytes())
		}
		kills++
		states, err := filepath.Glob(filepath.Join(killed, "checkpoints", "step-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(states) == 0 && taken > 0 {
			t.Fatal("a kill took the last good checkpoint")
		}
		taken = len(states)
	}
	if kills == 0 {
		t.Fatal("no kill came in time")
	}
	for _, name := range []string{"model.safetensors", "config.json"} {
		a, err := os.ReadFile(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(killed, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs after %d kills", name, kills)
		}
	}
	timing := cmpopts.IgnoreFields(train.Metrics{}, "Seconds", "TokensPerSecond", "MicroBatchSeconds")
	if diff := cmp.Diff(readCurve(t, whole), readCurve(t, killed), timing); diff != "" {
		t.Errorf("after %d kills the curve differs (-whole +killed):\n%s", kills, diff)
	}
}

func readCurve(t *testing.T, dir string) []train.Metrics {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var curve []train.Metrics
	for line := range strings.Lines(string(data)) {
		var m train.Metrics
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		curve = append(curve, m)
	}
	if !slices.IsSortedFunc(curve, func(a, b train.Metrics) int { return a.Step - b.Step }) {
		t.Error("the curve goes back")
	}
	return curve
}
