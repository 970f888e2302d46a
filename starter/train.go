package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// trainFlags are the flags of starter train that are not training options.
type trainFlags struct {
	model, packs, held, out string
	perStep                 int
	grads, resume           bool
	checkpointEvery, keep   int
	evalEvery               int
	ropeScale               float64
	context                 int
}

// newTrainCommand trains a model on a file of packs.
func newTrainCommand() *cobra.Command {
	var f trainFlags
	o := train.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "train --model DIR --packs FILE --steps N --out DIR",
		Short: "Train a model on packed sequences",
		Long: `Train reads a Hugging Face model directory and a file of packs, one JSON object a line:

  {"input_ids":[…],"cu_seqlens":[0,…,n],"labels":[…],"weights":[…]}

takes --packs-per-step of them a step, in order and from the start again at the end, and writes
the trained model to --out. Standard output gets one JSON line a step, and one for each parameter's norm at the
end; OUT/metrics.jsonl has each step's line once, however often the run was resumed. States are kept
in OUT/checkpoints; --resume goes on from the newest whole one, to the bit, however the process ended.
All packs are checked before the first step. OUT must not hold an unfinished
run or another model; a finished training there is replaced.`,
		Example: `  starter train --model tiny --packs packs.jsonl --steps 200 --packs-per-step 8 --lr 1e-3 --out trained
  starter train --model tiny --packs packs.jsonl --steps 200 --packs-per-step 8 --lr 1e-3 --out trained --checkpoint-every 20 --resume`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runTrain(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), f, o)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "model directory to start from")
	fl.StringVar(&f.packs, "packs", "", "JSON lines of packs")
	fl.StringVar(&f.out, "out", "", "directory for the trained model")
	fl.IntVar(&o.Steps, "steps", 0, "optimizer steps")
	fl.IntVar(&f.perStep, "packs-per-step", 1, "packs a step")
	fl.Float64Var(&o.LR, "lr", o.LR, "highest learning rate")
	fl.Float64Var(&o.MinLR, "min-lr", o.MinLR, "last learning rate")
	fl.IntVar(&o.WarmupSteps, "warmup", o.WarmupSteps, "warm-up steps; -1: ceil(3 % of the steps)")
	fl.Float64Var(&o.Clip, "clip", o.Clip, "largest norm of the gradient; 0: none")
	fl.Float64Var(&o.WeightDecay, "wd", o.WeightDecay, "weight decay")
	fl.StringVar((*string)(&o.Loss), "loss", string(o.Loss), "longalign, pack or token")
	fl.StringVar((*string)(&o.Schedule), "schedule", string(o.Schedule), "cosine, linear or constant")
	fl.StringVar((*string)(&o.Objective), "objective", string(o.Objective), "sft (the packs' labels) or pretrain (every token)")
	fl.StringVar(&o.DType, "dtype", o.DType, "type of computation: f32, f64 or bf16")
	fl.StringVar(&o.Device, "device", o.Device, "auto, host or cuda[:N]")
	fl.StringVar((*string)(&o.Recompute), "recompute", string(o.Recompute), "auto, none, selective or layer: less memory for up to a third more work")
	fl.StringVar((*string)(&o.Offload), "offload", string(o.Offload), "auto, none, or some of activations,gradients,optimizer: kept in host memory")
	fl.StringVar((*string)(&o.States), "optimizer-states", string(train.StatesF32), "f32 or 8bit")
	fl.BoolVar(&o.Parity, "parity", o.Parity, "check before the first step that the loss does not depend on the layout; OUT/parity.json keeps the result")
	fl.BoolVar(&f.grads, "grads", false, "print the norm of each gradient of the first step")
	fl.BoolVar(&f.resume, "resume", false, "go on from the newest checkpoint in OUT/checkpoints")
	fl.IntVar(&f.checkpointEvery, "checkpoint-every", 0, "steps between checkpoints; 0: one every ten minutes. There is always one after the last step and when something stops the run")
	fl.IntVar(&f.keep, "keep", 2, "checkpoints to keep")
	fl.StringVar(&f.held, "eval-packs", "", "packs to measure the held-out loss on")
	fl.IntVar(&f.evalEvery, "eval-every", 0, "steps between held-out losses; 0: only at the end")
	fl.Float64Var(&f.ropeScale, "rope-theta-scale", 0, "multiply the rotary base, to extend the context (the paper: 200)")
	fl.IntVar(&f.context, "context", 0, "context in tokens to extend to; 0 keeps the model's")
	for _, name := range []string{"model", "packs", "steps", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was defined above
		}
	}
	return cmd
}

// check refuses numbers that cannot work.
func (f trainFlags) check() error {
	for _, n := range []struct {
		flag  string
		value int
		least int
	}{
		{"packs-per-step", f.perStep, 1}, {"checkpoint-every", f.checkpointEvery, 0}, {"keep", f.keep, 1},
		{"eval-every", f.evalEvery, 0}, {"context", f.context, 0},
	} {
		if n.value < n.least {
			return fmt.Errorf("train: --%s is %d; it must be at least %d", n.flag, n.value, n.least)
		}
	}
	if f.evalEvery > 0 && f.held == "" {
		return errors.New("train: --eval-every needs --eval-packs, the packs to measure the held-out loss on")
	}
	if f.ropeScale < 0 {
		return fmt.Errorf("train: --rope-theta-scale is %v; it must be positive", f.ropeScale)
	}
	return nil
}

func runTrain(ctx context.Context, stdout, stderr io.Writer, f trainFlags, o train.Options) error {
	if err := errors.Join(f.check(), o.Validate()); err != nil {
		return usageError{err}
	}
	// A reader of the metrics that goes away ends the run like any other error, with a checkpoint.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	in, err := readTrainInputs(f, o)
	if err != nil {
		return err
	}
	src, err := train.Cycle(in.packs.packs, f.perStep)
	if err != nil {
		return usageError{fmt.Errorf("train: %w", err)}
	}
	if f.held != "" && f.evalEvery == 0 {
		f.evalEvery = o.Steps
	}
	store := train.Checkpoints{Dir: filepath.Join(f.out, "checkpoints"), Keep: f.keep}
	if err := checkOut(store, f); err != nil {
		return err
	}
	dev, err := devices.Open(ctx, o.Device)
	if err != nil {
		return err
	}
	defer dev.Close()
	t, plan, err := openTrainer(dev, f, o, in)
	if err != nil {
		return err
	}
	defer t.Model().Close()
	defer t.Close()
	if plan.Recompute != train.RecomputeNone || plan.Offload != train.OffloadNone {
		fmt.Fprintf(stderr, "train: memory: %v\n", plan)
	}
	inputs := map[string]string{"model": in.model, "packs": in.packs.digest, "packs_per_step": strconv.Itoa(f.perStep)}
	if f.held != "" { // so that one curve is measured on one thing
		inputs["eval_packs"], inputs["eval_every"] = in.held.digest, strconv.Itoa(f.evalEvery)
	}
	t.SetInputs(inputs)
	unlock, err := store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkOut(store, f); err != nil { // of a run that ended since
		return err
	}
	if f.resume {
		if err := resumeTraining(t, store, stderr); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()
	lines := json.NewEncoder(out)
	// Made when the first step is taken.
	var curve *os.File
	defer func() {
		if curve != nil {
			curve.Close()
		}
	}()
	if f.grads && t.StepsDone() == 0 {
		if err := printGrads(ctx, lines, t, src); err != nil {
			return err
		}
	}
	lo := train.LoopOptions{
		OnParity: func(c train.Certificate) error { return keepParity(c, f.out, stderr) },
		OnStep: func(m train.Metrics) error {
			if curve == nil {
				var err error
				if !f.resume { // this run takes the place of a finished one
					err = store.Clear()
				}
				if err == nil {
					h := t.History()
					curve, err = openCurve(f.out, h[:len(h)-1])
				}
				if err != nil {
					return err
				}
			}
			if err := json.NewEncoder(curve).Encode(m); err != nil {
				return err
			}
			if err := lines.Encode(m); err != nil {
				return err
			}
			return out.Flush()
		},
		Checkpoint: store.Save, CheckpointEvery: f.checkpointEvery, EvalEvery: f.evalEvery, Held: in.held.packs,
	}
	if f.checkpointEvery == 0 {
		lo.CheckpointInterval = checkpointInterval
	}
	if err := t.Run(ctx, in.packs.named(src, f.perStep), lo); err != nil {
		return endedEarly(err, t)
	}
	if curve == nil { // all steps were taken before; the last held-out loss may not have been measured
		if curve, err = openCurve(f.out, t.History()); err != nil {
			return endedEarly(err, t)
		}
	}
	for _, p := range t.Model().Params() {
		x := make([]float64, p.Len())
		dev.Download64(x, t.Model().Master().Slice(p.Offset(), p.Offset()+p.Len()))
		if err := dev.Sync(); err != nil {
			return err
		}
		l2, sum := norms(x)
		if err := lines.Encode(map[string]any{"param": p.Name, "l2": l2, "sum": sum}); err != nil {
			return endedEarly(err, t)
		}
	}
	if err := t.SaveModel(f.out); err != nil {
		return fmt.Errorf("all steps are done and kept in %s, but the model is not written; the same command with --resume writes it: %w", store.Dir, err)
	}
	return nil
}

// checkpointInterval is the time between checkpoints where --checkpoint-every names no steps.
const checkpointInterval = 10 * time.Minute

// endedEarly says what is left of a training that ended before its last step.
func endedEarly(err error, t *train.Trainer) error {
	done, all := t.StepsDone(), t.Options().Steps
	switch {
	case errors.As(err, new(*train.CheckpointError)):
		return fmt.Errorf("%w; once --out can be written to, the same command with --resume goes on from the newest checkpoint there", err)
	case errors.As(err, new(*train.DivergedError)), done == 0:
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted after %d of %d steps; the same command with --resume goes on: %w", done, all, err)
	}
	return fmt.Errorf("stopped after %d of %d steps, which are kept; the same command with --resume goes on: %w", done, all, err)
}

// checkOut refuses a directory with what a new run would lose: the checkpoints of an unfinished run, or a model that no
// training here has made. A finished training is replaced.
func checkOut(store train.Checkpoints, f trainFlags) error {
	same, err := sameDirectory(f.out, f.model)
	if err != nil {
		return err
	}
	if same {
		return usageError{errors.New("train: --out is the --model that the run starts from, which --resume needs too; train into another directory")}
	}
	standing, err := store.Standing()
	if err != nil {
		return err
	}
	model := ""
	for _, pattern := range []string{"config.json", "*.safetensors", "*.safetensors.index.json"} {
		found, err := filepath.Glob(filepath.Join(globQuote.Replace(f.out), pattern))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			model = found[0]
		}
	}
	switch {
	case standing == train.NotBegun && model != "" && f.resume:
		return usageError{fmt.Errorf("train: %s is of a model, and %s holds no checkpoint to go on from; train into another --out", model, store.Dir)}
	case standing == train.NotBegun && model != "":
		return usageError{fmt.Errorf("train: %s is of a model that is there already; train into another --out", model)}
	case standing == train.Unfinished && !f.resume:
		return usageError{fmt.Errorf("train: %s holds checkpoints of an unfinished run; --resume goes on with it, another --out starts a new one", store.Dir)}
	case standing == train.Finished && model == "" && !f.resume:
		return usageError{fmt.Errorf("train: %s holds a run whose model is not written yet; --resume writes it, another --out starts a new one", store.Dir)}
	}
	return nil
}

// sameDirectory reports whether two paths are one directory; one that does not exist is none.
func sameDirectory(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !x.IsDir() {
		return false, usageError{fmt.Errorf("train: --out %s is a file; name a directory", a)}
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y), err
}

var globQuote = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// resumeTraining takes up the newest checkpoint.
func resumeTraining(t *train.Trainer, store train.Checkpoints, stderr io.Writer) error {
	state, err := store.Latest(func(err error) { fmt.Fprintln(stderr, "train:", err) })
	if err != nil {
		return err
	}
	if state == nil {
		fmt.Fprintf(stderr, "train: no checkpoint in %s, starting at step 0\n", store.Dir)
		return nil
	}
	defer state.Release()
	if err := t.Restore(state); err != nil {
		if other := (*train.ResumeError)(nil); errors.As(err, &other) {
			return usageError{err}
		}
		return err
	}
	fmt.Fprintf(stderr, "train: going on after %d of %d steps\n", t.StepsDone(), t.Options().Steps)
	return nil
}

// openCurve starts OUT/metrics.jsonl with the steps of the checkpoint, so that those a killed run took after
// it are in the file once.
func openCurve(dir string, history []train.Metrics) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		return nil, err
	}
	for _, m := range history {
		if err := json.NewEncoder(f).Encode(m); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// openTrainer checks that the run fits into memory before it loads anything.
func openTrainer(dev gpu.Device, f trainFlags, o train.Options, in trainInputs) (*train.Trainer, train.Memory, error) {
	dtype, err := train.ParseDType(o.DType)
	if err != nil {
		return nil, train.Memory{}, err
	}
	load := train.Load{MicroBatches: f.perStep}
	for _, file := range []packFile{in.packs, in.held} {
		tokens, longest := file.largest()
		load.Tokens, load.Longest = max(load.Tokens, tokens), max(load.Longest, longest)
	}
	if _, err := train.PlanMemory(in.config, o, load, dev.Info()); err != nil {
		return nil, train.Memory{}, err
	}
	m, err := llama.Load(f.model, dev, dtype, f.loadOptions()...)
	if err != nil {
		return nil, train.Memory{}, err
	}
	t, plan, err := train.Fit(m, o, load)
	if err != nil {
		m.Close()
		return nil, train.Memory{}, err
	}
	return t, plan, nil
}

func (f trainFlags) loadOptions() []llama.LoadOption {
	if f.ropeScale == 0 && f.context == 0 {
		return nil
	}
	return []llama.LoadOption{llama.WithRopeThetaScale(f.ropeScale, f.context)}
}

func printGrads(ctx context.Context, lines *json.Encoder, t *train.Trainer, src train.Source) error {
	b, err := src.Batch(0)
	if err != nil {
		return err
	}
	mt, err := t.Gradient(ctx, b.MicroBatches)
	if err != nil {
		return err
	}
	clip := 1.0 // the gradient that the optimizer sees
	if c := t.Options().Clip; c > 0 && mt.GradNorm > c {
		clip = c / mt.GradNorm
	}
	for _, p := range t.Model().Params() {
		x := make([]float64, p.Len())
		t.Model().Device().Download64(x, p.Grad)
		if err := t.Model().Device().Sync(); err != nil {
			return err
		}
		l2, _ := norms(x)
		if err := lines.Encode(map[string]any{"grad": p.Name, "l2": clip * l2}); err != nil {
			return err
		}
	}
	return nil
}

func norms(x []float64) (l2, sum float64) {
	for _, v := range x {
		l2 += v * v
		sum += v
	}
	return math.Sqrt(l2), sum
}

// keepParity tells the outcome of the check and keeps the certificate beside the model.
func keepParity(c train.Certificate, dir string, stderr io.Writer) error {
	if c.Skipped != "" {
		fmt.Fprintln(stderr, "train: loss parity not checked:", c.Skipped)
	} else {
		fmt.Fprintf(stderr, "train: loss parity holds: %d sequences in %d layouts agree within %.0e\n", c.Sequences, len(c.Layouts), c.Tolerance)
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "parity.json"), append(data, '\n'), 0o644)
}
