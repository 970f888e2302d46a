package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/gpu/train"
)

func trainArgs(model, packs, out string, more ...string) []string {
	return append([]string{"train", "--model", model, "--packs", packs, "--out", out, "--steps", "3", "--lr", "1e-3", "--device", "host"}, more...)
}

// tree returns the files of a directory by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestWhatANewRunWouldLoseIsRefused(t *testing.T) {
	model, packs := tinyTraining(t)
	unfinished, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if code := run(ctx, trainArgs(model, packs, unfinished), strings.NewReader(""), stop, io.Discard); code != exitInterrupted {
		t.Fatalf("exit %d", code)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		out  string
		more []string
		want string
	}{
		"an unfinished run":         {unfinished, nil, "--resume goes on with it"},
		"the model it starts from":  {model, nil, "--out is the --model"},
		"a model, with --resume":    {otherModel(t, model), []string{"--resume"}, "no checkpoint"},
		"a model made elsewhere":    {otherModel(t, model), nil, "there already"},
		"a file in the way":         {file, nil, "is a file"},
		"a run of other parameters": {unfinished, []string{"--resume", "--lr", "1e-4"}, "lr is 0.0001"},
	} {
		t.Run(name, func(t *testing.T) {
			before := tree(t, tt.out)
			if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, tt.out, tt.more...)...); code != exitUsage || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d: %s, want %q", code, stderr, tt.want)
			}
			if diff := cmp.Diff(before, tree(t, tt.out)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func otherModel(t *testing.T, model string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "other")
	if err := os.CopyFS(dir, os.DirFS(model)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestANewRunReplacesAFinishedOneWhole(t *testing.T) {
	model, packs := tinyTraining(t)
	used, fresh := t.TempDir(), t.TempDir()
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, used, "--steps", "6")...); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, out := range []string{used, fresh} {
		for _, more := range []string{"--parity", "--resume"} { // the new run, and once more from its own checkpoint
			if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--lr", "1e-2", more)...); code != exitDone {
				t.Fatalf("exit %d: %s", code, stderr)
			}
		}
	}
	for _, name := range []string{"model.safetensors", "checkpoints/step-00000003/state.safetensors"} {
		a, err := os.ReadFile(filepath.Join(used, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(fresh, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	if states, _ := filepath.Glob(filepath.Join(used, "checkpoints", "step-*")); len(states) != 1 {
		t.Errorf("%v: the old run's are there still", states)
	}
	if n := len(readCurve(t, used)); n != 3 {
		t.Errorf("%d points in the curve", n)
	}
}

func TestTwoTrainingsDoNotShareADirectory(t *testing.T) {
	model, packs := tinyTraining(t)
	out := t.TempDir()
	unlock, err := train.Checkpoints{Dir: filepath.Join(out, "checkpoints")}.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out)...); code == exitDone || !strings.Contains(stderr, "another training") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(out, "metrics.jsonl")); err == nil {
		t.Error("the curve was begun anew")
	}
}

func TestResumingFromAnotherModelIsRefused(t *testing.T) {
	model, packs := tinyTraining(t)
	out, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out)...); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if err := os.CopyFS(other, os.DirFS(model)); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := starterRun(t.Context(), trainArgs(other, packs, out, "--resume")...); code != exitDone {
		t.Fatalf("the same model elsewhere: exit %d: %s", code, stderr)
	}
	path := filepath.Join(other, "model.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-4] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := starterRun(t.Context(), trainArgs(other, packs, out, "--resume")...); code != exitUsage || !strings.Contains(stderr, "resume: model is") {
		t.Errorf("another model: exit %d: %s", code, stderr)
	}
}

func TestAllDataIsCheckedBeforeTheFirstStep(t *testing.T) {
	model, packs := tinyTraining(t)
	good := `{"input_ids":[1,5,6],"cu_seqlens":[0,3]}` + "\n\n"
	long := `{"input_ids":[` + strings.Repeat("1,", 64) + `1],"cu_seqlens":[0,65]}`
	for name, tt := range map[string]struct{ lines, want string }{
		"a late label outside the vocabulary": {good + `{"input_ids":[1,2,3],"cu_seqlens":[0,3],"labels":[1,2,99]}`, ":3: pack 1: labels[2] = 99"},
		"a late ID outside the vocabulary":    {good + `{"input_ids":[1,2,30],"cu_seqlens":[0,3]}`, ":3: pack 1: input_ids[2] = 30"},
		"a late sequence beyond the context":  {good + long, ":3: pack 1: sequence 0 has 65 tokens"},
		"no target anywhere":                  {`{"input_ids":[1,2,3],"cu_seqlens":[0,3],"labels":[-100,-100,-100]}`, "nothing would be learned"},
		"no weight anywhere":                  {`{"input_ids":[1,2,3],"cu_seqlens":[0,3],"weights":[0]}`, "nothing would be learned"},
		"two packs on a line":                 {`{"input_ids":[1,2],"cu_seqlens":[0,2]} {"input_ids":[1,2],"cu_seqlens":[0,2]}`, ":1: pack 0"},
		"a pack of two lines":                 {"{\"input_ids\":[1,2],\n\"cu_seqlens\":[0,2]}", "one line"},
	} {
		for _, role := range []string{"packs", "eval-packs"} {
			t.Run(name+", "+role, func(t *testing.T) {
				bad := filepath.Join(t.TempDir(), "bad.jsonl")
				if err := os.WriteFile(bad, []byte(tt.lines), 0o600); err != nil {
					t.Fatal(err)
				}
				out := filepath.Join(t.TempDir(), "out")
				code, stdout, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--"+role, bad)...)
				if code != exitFailed || !strings.Contains(stderr, bad) || !strings.Contains(stderr, tt.want) || stdout != "" {
					t.Errorf("exit %d: %s%s, want %q", code, stdout, stderr, tt.want)
				}
				if _, err := os.Stat(out); err == nil {
					t.Error("something was written")
				}
			})
		}
	}
}

func TestTrainingNumbersThatCannotWorkAreNamed(t *testing.T) {
	model, packs := tinyTraining(t)
	for _, tt := range [][]string{
		{"--context", "-5"}, {"--keep", "-3"}, {"--checkpoint-every", "-1"}, {"--packs-per-step", "0"},
		{"--packs-per-step", "100000000"}, {"--eval-every", "3"}, {"--rope-theta-scale", "-1"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out, tt...)...)
		if code != exitUsage || !strings.Contains(stderr, strings.ReplaceAll(strings.TrimPrefix(tt[0], "--"), "packs-per-step", "pack")) {
			t.Errorf("%v: exit %d: %s", tt, code, stderr)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%v: something was written", tt)
		}
	}
}

func TestATokenizerLargerThanTheModelIsRefused(t *testing.T) {
	model, packs := tinyTraining(t)
	file := `{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":30},"merges":[]}}`
	if err := os.WriteFile(filepath.Join(model, "tokenizer.json"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, filepath.Join(t.TempDir(), "out"))...)
	if code != exitFailed || !strings.Contains(stderr, "the tokenizer has 31 tokens, the model only 30") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// At this rate the first update overflows: no step has a checkpoint worth keeping.
func TestADivergenceNamesTheLinesAndWhatIsKept(t *testing.T) {
	model, packs := tinyTraining(t)
	out := t.TempDir()
	code, stdout, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--lr", "1e300", "--warmup", "0", "--checkpoint-every", "1", "--keep", "1")...)
	if code != exitFailed || !strings.Contains(stderr, packs+":1 sequence 0") || !strings.Contains(stderr, "there is no checkpoint") || strings.Contains(stdout, "param") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if states, _ := filepath.Glob(filepath.Join(out, "checkpoints", "step-*")); len(states) > 0 {
		t.Errorf("kept %v", states)
	}
}

func TestDamagedCheckpointsDoNotMeanAFreshStart(t *testing.T) {
	model, packs := tinyTraining(t)
	out := t.TempDir()
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out)...); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	states, err := filepath.Glob(filepath.Join(out, "checkpoints", "step-*", train.StateRecord))
	if err != nil || len(states) != 1 {
		t.Fatalf("%v, %v: the last step has no checkpoint", states, err)
	}
	data, err := os.ReadFile(states[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(states[0], bytes.Replace(data, []byte(`"step": 3`), []byte(`"step": -3`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--resume")...); code != exitFailed || !strings.Contains(stderr, "is whole") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestAReaderThatLeavesCostsNoStep(t *testing.T) {
	model, packs := tinyTraining(t)
	out := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), os.Args[0], trainArgs(model, packs, out)...)
	c.Env = append(os.Environ(), commandVariable+"=1")
	var errs bytes.Buffer
	c.Stdout, c.Stderr = w, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // before the first step's line
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != exitFailed || !strings.Contains(errs.String(), "stopped after 1 of 3 steps, which are kept") {
		t.Errorf("%v: %s", err, errs.String())
	}
	code, stdout, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--resume")...)
	if code != exitDone || !strings.Contains(stderr, "going on after 1 of 3") || strings.Contains(stdout, `"step":0`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if n := len(readCurve(t, out)); n != 3 {
		t.Errorf("%d points in the curve", n)
	}
}
