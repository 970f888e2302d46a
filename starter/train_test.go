package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
	"github.com/longalign/longalign-go/gpu/llama"
)

// tinyTraining writes a model and packs and returns their paths.
func tinyTraining(t *testing.T) (model, packs string) {
	t.Helper()
	dir := t.TempDir()
	dev, err := host.Open(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	c, err := llama.Shape{Dim: 16, Layers: 2, Heads: 2, KVHeads: 1, FeedForward: 24, Vocab: 30, Context: 64, BOS: 1, EOS: 2}.Config()
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New(c, dev, gpu.Float32, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Save(filepath.Join(dir, "model")); err != nil {
		t.Fatal(err)
	}
	lines := `{"input_ids":[1,5,6,7,2,1,8,9,2],"cu_seqlens":[0,5,9],"labels":[-100,-100,6,7,2,-100,-100,9,2]}
{"input_ids":[1,10,11,12,13,2],"cu_seqlens":[0,6],"weights":[2]}
{"input_ids":[1,3,4,2,1,3],"cu_seqlens":[0,4,6]}
`
	packs = filepath.Join(dir, "packs.jsonl")
	if err := os.WriteFile(packs, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "model"), packs
}

// starterRun runs a command line and returns its exit code, standard output and standard error.
func starterRun(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestTrainingGoesOnWhereItWasInterrupted(t *testing.T) {
	model, packs := tinyTraining(t)
	args := []string{"train", "--model", model, "--packs", packs, "--steps", "7", "--packs-per-step", "2", "--lr", "1e-2", "--warmup", "1", "--checkpoint-every", "2", "--device", "host"}
	whole, broken := t.TempDir(), t.TempDir()
	if code, _, stderr := starterRun(t.Context(), append(args, "--out", whole)...); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	// The context ends as soon as the third step's line is written.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first strings.Builder
	stop := writerFunc(func(p []byte) (int, error) {
		first.Write(p)
		if strings.Contains(first.String(), `"step":2`) {
			cancel()
		}
		return len(p), nil
	})
	var errs bytes.Buffer
	if code := run(ctx, append(args, "--out", broken), strings.NewReader(""), stop, &errs); code != exitInterrupted || !strings.Contains(errs.String(), "--resume") {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	code, second, stderr := starterRun(t.Context(), append(args, "--out", broken, "--resume")...)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	steps := func(out string) (losses []string) {
		for line := range strings.Lines(out) {
			var m struct {
				Step *int
				Loss json.RawMessage
			}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if m.Step != nil {
				losses = append(losses, string(m.Loss))
			}
		}
		return losses
	}
	if n := len(steps(first.String())) + len(steps(second)); n != 7 {
		t.Errorf("%d steps in both parts, want 7: no double point", n)
	}
	a, err := os.ReadFile(filepath.Join(whole, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(broken, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the interrupted run ended with other weights")
	}
	code, _, stderr = starterRun(t.Context(), append(args, "--out", broken, "--resume", "--min-lr", "1e-3")...)
	if code != exitUsage || !strings.Contains(stderr, "min_lr") {
		t.Errorf("resuming with another min_lr: exit %d: %s", code, stderr)
	}
}

func TestResumingWithOtherHeldOutDataIsRefused(t *testing.T) {
	model, packs := tinyTraining(t)
	data, err := os.ReadFile(packs)
	if err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(t.TempDir(), "held.jsonl")
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if err := os.WriteFile(held, first, 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--eval-packs", held, "--eval-every", "1")...); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"other packs":        {[]string{"--eval-packs", packs, "--eval-every", "1"}, "resume: eval_packs is sha256 "},
		"at other steps":     {[]string{"--eval-packs", held, "--eval-every", "2"}, "resume: eval_every is 2, the checkpoint was made with 1"},
		"no longer measured": {nil, "resume: eval_every is none, the checkpoint was made with 1"},
	} {
		if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out, append(tt.args, "--resume")...)...); code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit %d: %s, want %q", name, code, stderr, tt.want)
		}
	}
	if code, _, stderr := starterRun(t.Context(), trainArgs(model, packs, out, "--eval-packs", held, "--eval-every", "1", "--resume")...); code != exitDone {
		t.Errorf("the same: exit %d: %s", code, stderr)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestGenerationWithoutATokenizerGivesIDs(t *testing.T) {
	model, _ := tinyTraining(t)
	code, out, stderr := starterRun(t.Context(), "generate", "--model", model, "--prompt-ids", "1, 5", "--max-new-tokens", "4", "--device", "host")
	var got struct{ IDs []int32 }
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || len(got.IDs) == 0 || len(got.IDs) > 4 {
		t.Errorf("exit %d: %s %s", code, out, stderr)
	}
	long := "1" + strings.Repeat(",5", 1000)
	if code, _, stderr := starterRun(t.Context(), "generate", "--model", model, "--prompt-ids", long, "--max-new-tokens", "1", "--truncate-middle", "--device", "host"); code != exitDone || !strings.Contains(stderr, "were cut out of the prompt's middle") {
		t.Errorf("exit %d: a prompt that was cut without a word: %s", code, stderr)
	}
	for _, args := range [][]string{
		{"generate", "--model", model},
		{"generate", "--model", model, "--prompt-ids", "1,x"},
		{"generate", "--model", model, "--prompt-ids", "1", "--dtype", "f8"},
	} {
		if code, _, stderr := starterRun(t.Context(), args...); code != exitUsage {
			t.Errorf("%v: exit %d: %s", args, code, stderr)
		}
	}
}

func TestTrainingOnBadInputWritesNothing(t *testing.T) {
	model, packs := tinyTraining(t)
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	for name, tt := range map[string]struct {
		lines string
		args  []string
		want  string
	}{
		"boundaries that fall":        {`{"input_ids":[1,2,3],"cu_seqlens":[0,3,2]}`, nil, "pack 0"},
		"a misspelt field":            {`{"input_ids":[1,2,3],"cu_seqlen":[0,3]}`, nil, "cu_seqlen"},
		"no packs":                    {"", nil, "no packs"},
		"an ID beyond the vocabulary": {`{"input_ids":[1,99,3],"cu_seqlens":[0,3]}`, nil, "vocabulary of 30"},
		"an unknown loss":             {"", []string{"--packs", packs, "--loss", "mean"}, "longalign, pack or token"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(bad, []byte(tt.lines), 0o600); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "out")
			args := append([]string{"train", "--model", model, "--packs", bad, "--steps", "2", "--out", out, "--device", "host"}, tt.args...)
			code, _, stderr := starterRun(t.Context(), args...)
			if code == exitDone || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d: %s, want %q", code, stderr, tt.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("the output directory was made")
			}
		})
	}
}

func TestServingStrangersNeedsAToken(t *testing.T) {
	for name, tt := range map[string]struct {
		addr, token string
		fine        bool
	}{
		"loopback":                 {"127.0.0.1:8000", "", true},
		"loopback of IPv6":         {"[::1]:0", "", true},
		"localhost":                {"localhost:8000", "", true},
		"everywhere":               {":8000", "", false},
		"everywhere, with a token": {"0.0.0.0:8000", "t", true},
		"another machine's name":   {"gpu7:8000", "", false},
		"no port":                  {"127.0.0.1", "", false},
	} {
		if err := checkExposure(tt.addr, tt.token); (err == nil) != tt.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBenchAccountsForTheStep(t *testing.T) {
	model, _ := tinyTraining(t)
	var out, errs bytes.Buffer
	err := runBench(t.Context(), &out, &errs, benchFlags{config: filepath.Join(model, "config.json"), device: "host", dtype: "f32", recompute: "none", tokens: 100, length: 32, steps: 1, growth: []int{10, 50}})
	if err != nil {
		t.Fatal(err)
	}
	var r benchResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	var share float64
	for _, p := range r.Parts {
		share += p.Share
	}
	if r.Tokens != 100 || r.Sequences != 4 || r.TokensPerSecond <= 0 || share < 0.99 || share > 1.01 || !strings.Contains(errs.String(), "of roof") {
		t.Errorf("%s\n%s", out.String(), errs.String())
	}
	// Two layers; ten sequences of 10 against two of 50.
	if len(r.Growth) != 2 || r.Growth[0].Pairs != 2*10*55 || r.Growth[1].Pairs != 2*2*1275 || r.Growth[1].AttentionSeconds <= 0 {
		t.Errorf("growth %+v", r.Growth)
	}
}
