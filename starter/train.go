package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets"
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
end; OUT/metrics.jsonl has each step's line once, however often the run was resumed. With --checkpoint-every, states are kept in OUT/checkpoints; --resume goes on from the newest
whole one, to the bit, however the process ended.`,
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
	fl.IntVar(&f.checkpointEvery, "checkpoint-every", 0, "steps between checkpoints; 0: none, except on interruption")
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

func runTrain(ctx context.Context, stdout, stderr io.Writer, f trainFlags, o train.Options) error {
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	packs, digest, err := readPacks(f.packs)
	if err != nil {
		return err
	}
	src, err := train.Cycle(packs, f.perStep)
	if err != nil {
		return usageError{fmt.Errorf("train: %w", err)}
	}
	var held []datasets.Pack
	if f.held != "" {
		if held, _, err = readPacks(f.held); err != nil {
			return err
		}
		if f.evalEvery == 0 {
			f.evalEvery = o.Steps
		}
	}
	dev, err := devices.Open(ctx, o.Device)
	if err != nil {
		return err
	}
	defer dev.Close()
	t, plan, err := openTrainer(dev, f, o, packs)
	if err != nil {
		return err
	}
	defer t.Model().Close()
	defer t.Close()
	if plan.Recompute != train.RecomputeNone || plan.Offload != train.OffloadNone {
		fmt.Fprintf(stderr, "train: memory: %v\n", plan)
	}
	t.SetInputs(map[string]string{"packs": digest, "packs_per_step": strconv.Itoa(f.perStep)})
	store := train.Checkpoints{Dir: filepath.Join(f.out, "checkpoints"), Keep: f.keep}
	if f.resume {
		state, err := store.Latest(func(err error) { fmt.Fprintln(stderr, "train:", err) })
		if err != nil {
			return err
		}
		if state == nil {
			fmt.Fprintf(stderr, "train: no checkpoint in %s, starting at step 0\n", store.Dir)
		} else if err := t.Restore(state); err != nil {
			if other := (*train.ResumeError)(nil); errors.As(err, &other) {
				return usageError{err}
			}
			return err
		} else {
			state.Release()
			fmt.Fprintf(stderr, "train: going on after %d of %d steps\n", t.StepsDone(), o.Steps)
		}
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()
	lines := json.NewEncoder(out)
	// Made when the first step is taken: bad input writes nothing.
	var curve *os.File
	defer func() {
		if curve != nil {
			curve.Close()
		}
	}()
	resumed := slices.Clone(t.History())
	if f.grads && t.StepsDone() == 0 {
		if err := printGrads(ctx, lines, t, src); err != nil {
			return err
		}
	}
	lo := train.LoopOptions{
		OnParity: func(c train.Certificate) error { return keepParity(c, f.out, stderr) },
		OnStep: func(m train.Metrics) error {
			if err := lines.Encode(m); err != nil {
				return err
			}
			if curve == nil {
				var err error
				if curve, err = openCurve(f.out, resumed); err != nil {
					return err
				}
			}
			if err := json.NewEncoder(curve).Encode(m); err != nil {
				return err
			}
			return out.Flush()
		},
		Checkpoint: store.Save, CheckpointEvery: f.checkpointEvery, EvalEvery: f.evalEvery, Held: held,
	}
	if f.checkpointEvery == 0 {
		// Without checkpoints asked for, one is written only if the run is interrupted.
		lo.Checkpoint = func(s *train.State) error {
			if s.Step == o.Steps {
				return nil
			}
			return store.Save(s)
		}
	}
	if err := t.Run(ctx, src, lo); err != nil {
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("interrupted after %d of %d steps; the same command with --resume goes on: %w", t.StepsDone(), o.Steps, err)
		}
		return err
	}
	for _, p := range t.Model().Params() {
		x := make([]float64, p.Len())
		dev.Download64(x, t.Model().Master().Slice(p.Offset(), p.Offset()+p.Len()))
		if err := dev.Sync(); err != nil {
			return err
		}
		l2, sum := norms(x)
		if err := lines.Encode(map[string]any{"param": p.Name, "l2": l2, "sum": sum}); err != nil {
			return err
		}
	}
	return t.SaveModel(f.out)
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
func openTrainer(dev gpu.Device, f trainFlags, o train.Options, packs []datasets.Pack) (*train.Trainer, train.Memory, error) {
	dtype, err := train.ParseDType(o.DType)
	if err != nil {
		return nil, train.Memory{}, err
	}
	c, err := llama.ReadConfig(f.model)
	if err != nil {
		return nil, train.Memory{}, err
	}
	longest := 0
	for i := range packs {
		longest = max(longest, len(packs[i].InputIDs))
	}
	load := train.Load{Tokens: longest, Longest: longestSequence(packs), MicroBatches: f.perStep}
	if _, err := train.PlanMemory(c, o, load, dev.Info()); err != nil {
		return nil, train.Memory{}, err
	}
	var opts []llama.LoadOption
	if f.ropeScale != 0 || f.context != 0 {
		opts = append(opts, llama.WithRopeThetaScale(f.ropeScale, f.context))
	}
	m, err := llama.Load(f.model, dev, dtype, opts...)
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

func longestSequence(packs []datasets.Pack) int {
	longest := 0
	for i := range packs {
		for k := range packs[i].Sequences() {
			longest = max(longest, int(packs[i].CuSeqlens[k+1]-packs[i].CuSeqlens[k]))
		}
	}
	return longest
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

// readPacks reads a file of packs and its digest.
func readPacks(path string) ([]datasets.Pack, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("packs: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	dec := json.NewDecoder(bufio.NewReaderSize(io.TeeReader(f, h), 1<<20))
	dec.DisallowUnknownFields()
	var packs []datasets.Pack
	for {
		var p datasets.Pack
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.Validate(0)
		}
		if err != nil {
			return nil, "", fmt.Errorf("%s: pack %d: %w", path, len(packs), err)
		}
		packs = append(packs, p)
	}
	if len(packs) == 0 {
		return nil, "", fmt.Errorf("%s holds no packs", path)
	}
	return packs, hex.EncodeToString(h.Sum(nil)), nil
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
