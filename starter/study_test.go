package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/testenv"
	"github.com/longalign/longalign-go/workflows"
)

// writeStudy writes study.yaml and its corpus of ten Go packages.
func writeStudy(t *testing.T, dir string) {
	t.Helper()
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("study.yaml", cliStudy)
	nouns := []string{"queue", "river", "clock", "garden", "ladder", "market", "window", "signal", "harbor", "engine"}
	for i, noun := range nouns {
		write(filepath.Join("corpus", noun, noun+".go"), fmt.Sprintf(
			"// Package %[1]s keeps a %[1]s.\npackage %[1]s\n\n// Open makes the %[1]s number %[2]d ready, and returns how many of the %[3]s are left.\nfunc Open(%[1]s int) int {\n\treturn %[1]s + %[2]d\n}\n",
			noun, i, nouns[(i+1)%len(nouns)]))
	}
}

// remote is a Temporal namespace and a directory store, as flags, with a worker in this process.
type remote struct {
	t     *testing.T
	flags []string // of commands that need Temporal
	store []string // of commands that need the store alone
	data  string
}

func newRemote(t *testing.T, queues ...string) *remote {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers")
	}
	ep := testenv.Shared(t)
	temporal, namespace := testenv.Namespace(t, ep, workflows.SearchAttributes)
	clearEnvironment(t)
	writeStudy(t, ".")
	r := &remote{t: t, data: t.TempDir()}
	uri := "file://" + filepath.Join(t.TempDir(), "store")
	r.store = []string{"--store", uri, "--data", r.data}
	r.flags = append([]string{"--address", ep.Temporal, "--namespace", namespace}, r.store...)
	store, err := artifact.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	a := &activities.Activities{Store: store, OpenDevice: devices.Open, Scratch: t.TempDir(), Temporal: temporal}
	for _, q := range queues {
		w := worker.New(temporal, q, worker.Options{WorkerStopTimeout: 10 * time.Second, DisableRegistrationAliasing: true, DeadlockDetectionTimeout: 10 * time.Second, DisableWorkflowWorker: q != workflows.QueueControl})
		workflows.Register(w, q, a)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
	}
	return r
}

// do runs a command and checks its exit code.
func (r *remote) do(want int, args ...string) (stdout, stderr string) {
	r.t.Helper()
	code, stdout, stderr := starterRun(r.t.Context(), args...)
	if code != want {
		r.t.Fatalf("starter %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
	return stdout, stderr
}

func (r *remote) remote(args ...string) []string { return slices.Concat(args, r.flags) }
func (r *remote) local(args ...string) []string  { return slices.Concat(args, r.store) }

// contains checks that a text says all of the words.
func contains(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

func TestAStudyFromTheCommandLine(t *testing.T) {
	r := newRemote(t, workflows.Queues...)
	tables, progress := r.do(exitDone, r.remote("run", "study.yaml")...)
	id := strings.Fields(progress[strings.Index(progress, "\nrun "):])[1]
	contains(t, "run", progress, "report.html", "artifacts", "starter report "+id, "starter explain "+id)
	contains(t, "run", tables, "packing", "naive")

	t.Run("again, everything is reused", func(t *testing.T) {
		again, progress := r.do(exitDone, r.remote("run", "study.yaml")...)
		if again != tables {
			t.Errorf("the tables differ:\n%s\n%s", tables, again)
		}
		contains(t, "run", progress, "reused")
		out, _ := r.do(exitDone, r.local("explain", id)...)
		contains(t, "explain", out, "14 results: 14 hits (reused), 0 misses (made)")
	})
	t.Run("what differs is explained", func(t *testing.T) {
		_, progress := r.do(exitDone, r.remote("run", "study.yaml", "--set", "train.learning_rate=2e-2")...)
		other := strings.Fields(progress[strings.Index(progress, "\nrun "):])[1]
		if other == id {
			t.Fatal("another learning rate has the same ID")
		}
		out, _ := r.do(exitDone, r.local("explain", other)...)
		contains(t, "explain", out, "miss", "hit", "params.train.learning_rate: 0.01 → 0.02", "7 hits (reused), 7 misses (made)")
		out, _ = r.do(exitDone, r.local("list")...)
		contains(t, "list", out, id, other, "completed")
		var runs []artifact.RunRecord
		out, _ = r.do(exitDone, r.local("list", "--json")...)
		if err := json.Unmarshal([]byte(out), &runs); err != nil || len(runs) < 2 || runs[0].ID != other {
			t.Errorf("newest first as JSON: %v\n%s", err, out)
		}
	})
	t.Run("reports repeat byte by byte", func(t *testing.T) {
		for _, format := range []string{"text", "markdown", "latex", "csv", "json", "html"} {
			once, _ := r.do(exitDone, r.local("report", id, "--format", format)...)
			twice, _ := r.do(exitDone, r.local("report", id, "--format", format)...)
			if once == "" || once != twice {
				t.Errorf("%s: %d and %d bytes that differ", format, len(once), len(twice))
			}
		}
		if text, _ := r.do(exitDone, r.local("report", id)...); text != tables {
			t.Error("run and report print different tables")
		}
		first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
		r.do(exitDone, r.local("report", id, "--out", first)...)
		r.do(exitDone, r.local("report", id, "--out", second)...)
		files := 0
		if err := filepath.WalkDir(first, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			rel, err := filepath.Rel(first, path)
			if err != nil {
				return err
			}
			a, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(filepath.Join(second, rel))
			if err != nil {
				return err
			}
			if string(a) != string(b) {
				t.Errorf("%s differs", rel)
			}
			return nil
		}); err != nil || files < 3 {
			t.Errorf("%d files, %v", files, err)
		}
		_, stderr := r.do(exitUsage, r.local("report", id, "--table", "none")...)
		contains(t, "a table that is not there", stderr, "none")
	})
	checkProvenance(t, r, id)
	t.Run("its state is known afterwards", func(t *testing.T) {
		out, _ := r.do(exitDone, r.remote("status", id)...)
		contains(t, "status", out, id, "completed", "2 of 2 cells")
		out, _ = r.do(exitDone, r.remote("status", id, "--json")...)
		if !json.Valid([]byte(out)) {
			t.Errorf("not JSON: %s", out)
		}
		r.do(exitFailed, r.remote("status", "none-1")...)
	})
	t.Run("outputs can be copied out", func(t *testing.T) {
		dir := t.TempDir()
		_, stderr := r.do(exitUsage, r.local("get", id, "checkpoint", "--out", dir)...)
		contains(t, "get of several", stderr, "--cell packing/seed=1", "--cell naive/seed=1")
		r.do(exitDone, r.local("get", id, "checkpoint", "--cell", "naive/seed=1", "--out", dir)...)
		for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		out, _ := r.do(exitDone, "generate", "--model", dir, "--prompt", "func Open", "--max-new-tokens", "3", "--device", "host")
		if !json.Valid([]byte(out)) {
			t.Errorf("generate: %s", out)
		}
	})
	t.Run("a cell that fails leaves tables with a gap", func(t *testing.T) {
		_, stderr := r.do(exitIncomplete, r.remote("run", "study.yaml", "--set", "study.methods.1.set={train.device: abacus}")...)
		contains(t, "run", stderr, "naive/seed=1", "abacus", "incomplete")
	})
	t.Run("its sequences are given to the published torch trainer", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "npy")
		out, _ := r.do(exitDone, r.local("get", id, "tokens", "--format", "thudm", "--max-length", "400", "--batch-size", "1", "--out", dir)...)
		contains(t, "get", out, `"sequences":`, `"packs":`)
		for _, name := range []string{"inputs.npy", "labels_sort.npy", "weights_pack.npy", "attention_masks_pack.json"} {
			if s, err := os.Stat(filepath.Join(dir, name)); err != nil || s.Size() == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, stderr := r.do(exitUsage, r.local("get", id, "tokens", "--format", "thudm", "--out", dir)...)
		contains(t, "a second get", stderr, "is not empty")
	})
	t.Run("a run that fails says why and how to go on", func(t *testing.T) {
		_, stderr := r.do(exitFailed, r.remote("run", "study.yaml", "--set", "documents.sources.0.path=nowhere")...)
		contains(t, "run", stderr, "BadData", "nowhere", "starter resume small-")
		i := strings.Index(stderr, "starter resume ")
		failed := strings.Fields(stderr[i:])[2]
		out, _ := r.do(exitDone, r.local("list")...)
		contains(t, "list", out, failed, "failed")
		_, stderr = r.do(exitFailed, r.local("report", failed)...)
		contains(t, "a report of a failed run", stderr, "has no tables", "failed")
		// Mended, it goes on under the same ID.
		if err := os.Rename("corpus", "nowhere"); err != nil {
			t.Fatal(err)
		}
		out, stderr = r.do(exitDone, r.remote("resume", failed)...)
		contains(t, "resume", out+stderr, "packing", failed)
	})
}

func TestARunWithoutAWorkerSaysWhatItWaitsFor(t *testing.T) {
	r := newRemote(t) // no worker at all
	out, stderr := r.do(exitDone, r.remote("run", "study.yaml", "--detach")...)
	id := strings.TrimSpace(out)
	contains(t, "detached", stderr, "starter status --follow "+id)
	out, _ = r.do(exitDone, r.remote("status", id)...)
	contains(t, "status", out, "no worker serves queue control", "worker --queues")

	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	code, _, stderr := starterRun(ctx, r.remote("run", "study.yaml")...)
	if code != exitInterrupted {
		t.Errorf("interrupted while it follows: exit %d", code)
	}
	contains(t, "an interrupted run", stderr, "no worker serves queue control", "detached; the run goes on", id)
	_, stderr = r.do(exitDone, r.remote("cancel", id)...)
	contains(t, "cancel", stderr, "starter resume "+id)
}

func TestARunThatStillSavesIsResumedWhenItHasStopped(t *testing.T) {
	r := newRemote(t, workflows.Queues...)
	// Long enough to be cancelled in a training.
	out, _ := r.do(exitDone, r.remote("run", "study.yaml", "--detach", "--set", "batches.epochs=2000")...)
	id := strings.TrimSpace(out)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if out, _ := r.do(exitDone, r.remote("status", id)...); strings.Contains(out, "packing/seed=1: ") {
			break
		}
		if time.Now().After(deadline) {
			out, _ := r.do(exitDone, r.remote("status", id)...)
			t.Fatalf("no training has begun within a minute:\n%s", out)
		}
	}
	r.do(exitDone, r.remote("cancel", id)...)
	r.do(exitDone, r.remote("resume", id, "--detach")...)
	out, _ = r.do(exitDone, r.remote("status", id)...)
	contains(t, "status after resume", out, id+": running")
	r.do(exitDone, r.remote("cancel", id)...)
}
