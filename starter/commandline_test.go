package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestEveryCommandHasHelpWithExamplesThatParse(t *testing.T) {
	root := newRootCommand()
	for _, c := range root.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			code, stdout, stderr := starterRun(t.Context(), c.Name(), "--help")
			if code != exitDone || stderr != "" || !strings.Contains(stdout, "Examples:") || !strings.Contains(stdout, "starter "+c.Name()) {
				t.Errorf("exit %d, %q, help:\n%s", code, stderr, stdout)
			}
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("short help %q", c.Short)
			}
			c.Flags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("--%s says nothing", f.Name)
				}
			})
			for line := range strings.Lines(c.Example) {
				exampleParses(t, line)
			}
		})
	}
	for line := range strings.Lines(root.Example) {
		exampleParses(t, line)
	}
}

// exampleParses checks that an example names a command, and flags that it has.
func exampleParses(t *testing.T, line string) {
	t.Helper()
	_, args, ok := strings.Cut(strings.TrimSpace(line), "starter ")
	if !ok {
		return
	}
	args, _, _ = strings.Cut(args, "   ") // what follows says what it does
	args, _, _ = strings.Cut(args, " | ")
	args, _, _ = strings.Cut(args, " < ")
	args, _, _ = strings.Cut(args, " > ")
	root := newRootCommand()
	c, rest, err := root.Find(strings.Fields(args))
	if err != nil || c == root {
		t.Errorf("example %q: %v", line, err)
		return
	}
	c.FParseErrWhitelist = cobra.FParseErrWhitelist{}
	for _, arg := range rest {
		name, isFlag := strings.CutPrefix(arg, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && c.Flags().Lookup(name) == nil {
			t.Errorf("example %q: %s has no --%s", line, c.Name(), name)
		}
	}
}

func TestWrongUseIsExitCodeTwoAndSaysWhatIsWrong(t *testing.T) {
	clearEnvironment(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	study := file("study.yaml", cliStudy)
	misspelt := file("misspelt.yaml", strings.Replace(cliStudy, "batches:", "batchs:", 1))
	store := "file://" + filepath.Join(dir, "store")
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"an unknown command":              {[]string{"rnu"}, `unknown command "rnu"`},
		"an unknown flag":                 {[]string{"run", study, "--embeded"}, "unknown flag: --embeded; see starter run --help"},
		"a flag's value of a wrong type":  {[]string{"plan", "--max-length", "many"}, "invalid argument"},
		"no file to run":                  {[]string{"run"}, "accepts 1 arg(s), received 0; usage: starter run FILE"},
		"two files to run":                {[]string{"run", study, study}, "accepts 1 arg(s), received 2"},
		"a file that is not there":        {[]string{"run", dir + "/none.yaml"}, "none.yaml: no such file"},
		"a directory":                     {[]string{"run", dir}, "experiment file"},
		"a misspelt key":                  {[]string{"run", misspelt}, "misspelt.yaml:9: batchs: unknown key; did you mean batches?"},
		"a misspelt --set":                {[]string{"run", study, "--set", "batchs.method=naive"}, "--set: batchs: unknown key; did you mean batches?"},
		"embedded and detached":           {[]string{"run", study, "--embedded", "--detach"}, "--embedded --detach would stop the run"},
		"no store":                        {[]string{"list"}, "set --store or LONGALIGN_STORE"},
		"a store of an unknown kind":      {[]string{"list", "--store", "ftp://host/x"}, "ftp"},
		"a report of no run":              {[]string{"report", "--store", store}, "accepts"},
		"a format that is not known":      {[]string{"report", "x", "--store", store, "--format", "word"}, "word"},
		"nothing to copy into":            {[]string{"get", "x", "checkpoint", "--store", store}, "--out"},
		"a flag left out":                 {[]string{"score", "--benchmark", "longbench"}, `required flag(s) "predictions"`},
		"flags that exclude each other":   {[]string{"score", "--benchmark", "longbench", "--predictions", "x", "--averages", "--per-sample"}, "none of the others"},
		"an argument too many":            {[]string{"version", "now"}, "unknown command"},
		"a status without a run":          {[]string{"status"}, "accepts 1 arg(s), received 0"},
		"a torch format that is none":     {[]string{"get", "x", "tokens", "--out", "d", "--format", "npz"}, `format "npz" is not known; use thudm`},
		"a torch format of a model":       {[]string{"get", "x", "checkpoint", "--out", "d", "--format", "thudm"}, "--format thudm is for tokens, not for checkpoint"},
		"a cancellation without a run":    {[]string{"cancel"}, "accepts 1 arg(s), received 0"},
		"a resumption without a run":      {[]string{"resume"}, "accepts 1 arg(s), received 0"},
		"an end that is everywhere":       {[]string{"generate", "--model", dir, "--prompt", "a", "--stop", ""}, "--stop: an empty text"},
		"a prompt from two places":        {[]string{"generate", "--model", dir, "--prompt", "a", "--prompt-file", "b"}, "give one of --prompt, --prompt-file and --prompt-ids"},
		"no new tokens":                   {[]string{"generate", "--model", dir, "--prompt", "a", "--max-new-tokens", "0"}, "--max-new-tokens 0 is not positive"},
		"a temperature below zero":        {[]string{"generate", "--model", dir, "--prompt", "a", "--temperature", "-1"}, "--temperature -1 is neither"},
		"no share of the likeliest":       {[]string{"generate", "--model", dir, "--prompt", "a", "--top-p", "0"}, "--top-p 0 is not above 0"},
		"a dry run of what could not run": {[]string{"run", study, "--dry-run", "--set", "tokens.max_length=1"}, "max_length"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := starterRun(t.Context(), tt.args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) || !strings.HasPrefix(stderr, "starter: ") {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit 2 and %q", code, stdout, stderr, tt.want)
			}
		})
	}
}

func TestWhatFailsIsExitCodeOne(t *testing.T) {
	clearEnvironment(t)
	dir := t.TempDir()
	study := filepath.Join(dir, "study.yaml")
	if err := os.WriteFile(study, []byte(cliStudy), 0o600); err != nil {
		t.Fatal(err)
	}
	store := "file://" + filepath.Join(dir, "store")
	nowhere := []string{"--address", "127.0.0.1:1", "--data", dir}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a report of an unknown run":   {[]string{"report", "none-1", "--store", store}, "none-1"},
		"an explanation of no run":     {[]string{"explain", "none-1", "--store", store}, "none-1"},
		"outputs of an unknown run":    {[]string{"get", "none-1", "checkpoint", "--out", dir, "--store", store}, "none-1"},
		"a status without Temporal":    {append([]string{"status", "none-1"}, nowhere...), "no answer from Temporal at 127.0.0.1:1"},
		"programs that are not there":  {[]string{"dev", "--data", dir, "--bin-dir", dir}, "build it with make build"},
		"embedded without its program": {[]string{"run", study, "--embedded", "--data", dir, "--bin-dir", dir}, "build it with make build"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := starterRun(t.Context(), tt.args...)
			if code != exitFailed || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d, stderr %q; want exit 1 and %q", code, stderr, tt.want)
			}
		})
	}
}

func TestAnInterruptedCommandIsExitCode130(t *testing.T) {
	clearEnvironment(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _, stderr := starterRun(ctx, "status", "a-1", "--address", "127.0.0.1:1", "--data", t.TempDir()); code != exitInterrupted {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestADryRunStartsNothing(t *testing.T) {
	clearEnvironment(t)
	writeStudy(t, ".")
	data := t.TempDir()
	code, stdout, stderr := starterRun(t.Context(), "run", "study.yaml", "--dry-run", "--set", "study.seeds=[1, 2]", "--data", data)
	if code != exitDone {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	for _, stage := range []string{"documents", "tokenizer", "instructions", "tokens", "batches", "checkpoint", "predictions", "scores", "tables"} {
		if !strings.Contains(stdout, stage) {
			t.Errorf("it does not name the stage %s:\n%s", stage, stdout)
		}
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) > 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

func TestADryRunSaysThatTheDeviceIsNotHere(t *testing.T) {
	clearEnvironment(t)
	writeStudy(t, ".")
	code, stdout, stderr := starterRun(t.Context(), "run", "study.yaml", "--dry-run", "--set", "train.device=cuda:77", "--data", t.TempDir())
	if code != exitDone || !strings.Contains(stdout, "warning  device cuda:77: ") || !strings.Contains(stdout, "try the dry run where that device is") {
		t.Errorf("exit %d, %q:\n%s", code, stderr, stdout)
	}
}

func TestTheVersionIsSaid(t *testing.T) {
	code, stdout, _ := starterRun(t.Context(), "version")
	if code != exitDone || !strings.Contains(stdout, "longalign") || !strings.Contains(stdout, "go1.") {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

// clearEnvironment takes away what would point a command to servers of the person who tests.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE", "LONGALIGN_STORE", "LONGALIGN_DATA"} {
		t.Setenv(name, "")
	}
	t.Chdir(t.TempDir())
}

// cliStudy is the least that goes through every stage. Lines matter to the cases above.
const cliStudy = `name: small
documents:
  sources: [{name: packages, path: corpus, format: go}]
  held_out: 0.4
  near_duplicates: -1
tokenizer: {vocab_size: 300}
tokens: {max_length: 768}
model: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 768}
batches: {method: packing, batch_size: 1, epochs: 2}
train: {learning_rate: 1e-2, checkpoint_every: 2, device: host}
predictions: {max_new_tokens: 2, generate: 1, max_instances: 2, device: host}
study:
  seeds: [1]
  methods:
    - {name: packing}
    - {name: naive, set: {batches.method: naive}}
tables: {kind: demo}
`
