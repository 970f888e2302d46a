package activities

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/shorttasks"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/serve"
)

// harnessProgram is lm-evaluation-harness's command.
const harnessProgram = "lm_eval"

func harnessFile(t shorttasks.Task) string { return t.Harness + ".json" }

// runHarness serves the checkpoint to lm-evaluation-harness, which runs as a child process, once for each task: their numbers of shots
// differ. Outputs: its results files as they are.
func runHarness(ctx context.Context, j *job, p datasets.PredictionsStageParams, tok *tokenizer.Tokenizer, template *chat.Template) error {
	program, err := exec.LookPath(harnessProgram)
	if err != nil {
		return badConfig("benchmarks.short_tasks.lm_eval: there is no program %s on this worker: pip install 'lm-eval[api]', or name a results file in short_tasks.results", harnessProgram)
	}
	dev, err := j.a.device(ctx, p.Device, j.call.Class)
	if err != nil {
		return err
	}
	defer dev.Close()
	dir, err := j.fetch(ctx, "checkpoint")
	if err != nil {
		return err
	}
	if strings.ContainsAny(dir, ",=") { // the harness's arguments are separated so
		return badConfig("the scratch directory %s has a comma or an equals sign in its name, which %s cannot be told; choose another with --scratch", dir, harnessProgram)
	}
	model, err := llama.Load(dir, dev, gpu.Float32)
	if err != nil {
		return badData("%w", err)
	}
	defer model.Close()
	token := rand.Text()
	handler, err := serve.New(model, tok, serve.Options{Name: "checkpoint", Template: template, Token: token, Timeout: 24 * time.Hour})
	if err != nil {
		return err
	}
	defer handler.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.moves.Add(1) // the harness asks: it does not stand still
		handler.ServeHTTP(w, r)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { server.Close(); <-served }()

	for i, task := range shorttasks.Tasks() {
		select {
		case <-j.stopping(ctx):
			return handover("the worker is stopping; the short tasks start again")
		default:
		}
		out := filepath.Join(j.dir, "harness-"+task.Harness)
		args := harnessArgs(task, listener.Addr().String(), dir, out, tok, model.Config().MaxPositions)
		if err := runChild(ctx, program, args, append(os.Environ(), "OPENAI_API_KEY="+token)); err != nil {
			return err
		}
		results, err := newestResults(out)
		if err != nil {
			return badData("%s: %w", harnessProgram, err)
		}
		if err := j.putFile(ctx, harnessFile(task), "application/json", results); err != nil {
			return err
		}
		j.report(ctx, Progress{Done: int64(i + 1), Total: int64(len(shorttasks.Tasks())), Unit: "task"})
	}
	return nil
}

// harnessArgs are the harness's arguments for one task. It asks for log-likelihoods of tokens it has encoded itself, by the checkpoint's
// own tokenizer.json: of texts it would count the tokens before the answer without the begin-of-sequence token that a server puts in
// front, and read the sums off by one. Its own window is 2,048 tokens, which 25 solved examples exceed, so it is told the model's.
func harnessArgs(task shorttasks.Task, addr, checkpoint, out string, tok *tokenizer.Tokenizer, window int) []string {
	begin := "False"
	if prefix, suffix := tok.SpecialTokens(); len(prefix) > 0 && len(suffix) == 0 {
		begin = "True"
	}
	return []string{
		"--model", "local-completions",
		"--model_args", fmt.Sprintf("model=checkpoint,base_url=http://%s/v1/completions,tokenizer_backend=huggingface,tokenizer=%s,tokenized_requests=True,add_bos_token=%s,max_length=%d,num_concurrent=1", addr, checkpoint, begin, window),
		"--tasks", task.Harness, "--num_fewshot", strconv.Itoa(task.Shots), "--batch_size", "1", "--output_path", out,
	}
}

// runChild runs a program without a shell. What it says last goes into the error.
func runChild(ctx context.Context, program string, args, env []string) error {
	c := exec.CommandContext(ctx, program, args...)
	var said tail
	c.Stdout, c.Stderr, c.Env, c.WaitDelay = &said, &said, env, 10*time.Second
	// It gets a moment to end its own children.
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	err := c.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return badData("%s ended with %v; it said last: %s", filepath.Base(program), exit, strings.TrimSpace(said.String()))
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

const tailBytes = 2000

func (t *tail) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	if over := t.Len() - tailBytes; over > 0 {
		t.Next(over)
	}
	return n, err
}

// newestResults finds the results file, which the harness puts below its output path under a name with the time.
func newestResults(dir string) (string, error) {
	newest := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasPrefix(d.Name(), "results") && filepath.Ext(path) == ".json" && filepath.Base(path) > filepath.Base(newest) {
			newest = path
		}
		return err
	})
	if err == nil && newest == "" {
		err = errors.New("it wrote no results file")
	}
	return newest, err
}
