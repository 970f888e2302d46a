package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

type benchFlags struct {
	config, lengths, device, dtype, recompute, offload, states string
	tokens, length, steps                                      int
	growth                                                     []int
}

// newBenchCommand times training steps on random weights.
func newBenchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench --config FILE --tokens N",
		Short: "Time a training step on random weights, by part",
		Long: `Bench makes the model of a config.json with random weights, takes training steps over random tokens and
prints one JSON object: tokens a second (median step), MFU (the model's floating-point operations against the
device's measured peak), peak memory, and each part's time and achieved speed. A roofline table goes to standard error.

--lengths names a file of sequence lengths, one a line, packed end to end up to --tokens; without it all
sequences have --length tokens. --growth repeats the step with sequences of each of several lengths and shows how the
linear parts cost the same a token, and attention the same a pair of tokens that see each other.`,
		Example: `  starter bench --config config.json --tokens 4096 --length 512
  starter bench --config config.json --tokens 65536 --lengths lengths.txt --recompute layer
  starter bench --config config.json --tokens 8192 --growth 512,2048,8192`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runBench(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "config.json of the model")
	fl.IntVar(&f.tokens, "tokens", 4096, "tokens a step")
	fl.IntVar(&f.length, "length", 512, "tokens a sequence")
	fl.StringVar(&f.lengths, "lengths", "", "file with one length in tokens a line")
	fl.IntSliceVar(&f.growth, "growth", nil, "lengths to repeat the step with, from 2 to --tokens")
	fl.IntVar(&f.steps, "steps", 3, "steps to time, after one to warm up")
	fl.StringVar(&f.device, "device", "auto", "auto, host or cuda[:N]")
	fl.StringVar(&f.dtype, "dtype", "f32", "type of computation: f32, f64 or bf16")
	fl.StringVar(&f.recompute, "recompute", string(train.RecomputeAuto), "auto, none, selective or layer")
	fl.StringVar(&f.offload, "offload", string(train.OffloadAuto), "auto, none, or some of activations,gradients,optimizer")
	fl.StringVar(&f.states, "optimizer-states", string(train.StatesF32), "f32 or 8bit")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

// benchPart is one row of the roofline.
type benchPart struct {
	Part      string  `json:"part"`
	Seconds   float64 `json:"seconds"` // a step
	Share     float64 `json:"share"`
	GFLOPS    float64 `json:"gflops"`
	GBps      float64 `json:"gb_per_second"`
	Intensity float64 `json:"flops_per_byte"`
	// OfRoof is the achieved speed against the most that this intensity allows on this device.
	OfRoof float64 `json:"of_roof"`
}

type benchResult struct {
	Tokens          int          `json:"tokens"`
	Sequences       int          `json:"sequences"`
	Parameters      int          `json:"parameters"`
	DType           string       `json:"dtype"`
	Device          gpu.Info     `json:"device"`
	StepSeconds     float64      `json:"step_seconds"`
	TokensPerSecond float64      `json:"tokens_per_second"`
	GFLOPS          float64      `json:"gflops"`
	MFU             float64      `json:"mfu,omitempty"`
	PeakGFLOPS      float64      `json:"peak_gflops,omitempty"`
	PeakGBps        float64      `json:"peak_gb_per_second,omitempty"`
	PeakMemory      int64        `json:"peak_memory_bytes,omitempty"`
	PlannedMemory   train.Memory `json:"planned_memory"`
	Parts           []benchPart  `json:"parts,omitempty"`
	Growth          []growthRow  `json:"growth,omitempty"`
	Loss            float64      `json:"loss"`
}

func runBench(ctx context.Context, stdout, stderr io.Writer, f benchFlags) error {
	data, err := os.ReadFile(f.config)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	c, err := llama.ParseConfig(data)
	if err != nil {
		return usageError{err}
	}
	lengths, err := benchLengths(f)
	if err != nil {
		return usageError{err}
	}
	if n := slices.Max(append(slices.Clone(lengths), f.growth...)); n > c.MaxPositions {
		return usageError{fmt.Errorf("bench: a sequence of %d tokens exceeds the model's context of %d; raise max_position_embeddings in %s or lower the length", n, c.MaxPositions, f.config)}
	}
	o := train.DefaultOptions()
	o.Steps, o.DType, o.Device, o.Recompute = f.steps+2, f.dtype, f.device, train.Recompute(f.recompute)
	o.Offload, o.States = train.Offload(f.offload), train.States(f.states)
	o.MaxLoss = 1e30 // random weights may guess badly
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	dtype, err := train.ParseDType(f.dtype)
	if err != nil {
		return usageError{err}
	}
	dev, err := devices.Open(ctx, f.device)
	if err != nil {
		return err
	}
	defer dev.Close()
	load := train.Load{Tokens: f.tokens, Longest: slices.Max(lengths)}
	if _, err := train.PlanMemory(c, o, load, dev.Info()); err != nil {
		return err
	}
	m, err := llama.New(c, dev, dtype, 0)
	if err != nil {
		return err
	}
	defer m.Close()
	t, plan, err := train.Fit(m, o, load)
	if err != nil {
		return err
	}
	defer t.Close()
	packs := []datasets.Pack{benchPack(lengths, c.Vocab)}
	if _, err := t.Step(ctx, packs); err != nil { // warms up: allocations, packed weights
		return err
	}
	r := benchResult{Tokens: len(packs[0].InputIDs), Sequences: len(lengths), Parameters: m.NumParams(), DType: f.dtype, Device: dev.Info(), PlannedMemory: plan}
	var seconds []float64
	for range f.steps {
		mt, err := t.Step(ctx, packs)
		if err != nil {
			return err
		}
		seconds = append(seconds, mt.Seconds)
		r.Loss = mt.Loss
	}
	// The last step is profiled; counting costs little, but its time does not count.
	profiler, profiled := dev.(gpu.Profiler)
	if profiled {
		profiler.StartProfile()
	}
	mt, err := t.Step(ctx, packs)
	if err != nil {
		return err
	}
	slices.Sort(seconds)
	r.StepSeconds = seconds[len(seconds)/2]
	r.TokensPerSecond = float64(r.Tokens) / r.StepSeconds
	r.GFLOPS = stepFLOPs(c, m.NumParams(), lengths) / r.StepSeconds / 1e9
	r.PeakMemory = peakMemory()
	if profiled {
		stats := profiler.StopProfile()
		var peaks gpu.Peaks
		if meter, ok := dev.(gpu.PeakMeter); ok {
			peaks = meter.Peak()
			r.PeakGFLOPS, r.PeakGBps = peaks.FLOPS/1e9, peaks.Bandwidth/1e9
			r.MFU = r.GFLOPS * 1e9 / max(1, peaks.FLOPS)
		}
		r.Parts = roofline(stats, mt.Seconds, peaks)
		printRoofline(stderr, r)
	}
	if len(f.growth) > 0 {
		if !profiled {
			return fmt.Errorf("bench: the %s device does not tell its parts' times, which --growth needs", dev.Info().Kind)
		}
		if r.Growth, err = measureGrowth(ctx, t, profiler, f); err != nil {
			return err
		}
		printGrowth(stderr, r.Growth)
	}
	return json.NewEncoder(stdout).Encode(r)
}

// benchLengths returns the sequence lengths of one step.
func benchLengths(f benchFlags) ([]int, error) {
	if f.tokens < 2 || f.length < 2 || f.steps < 1 {
		return nil, errors.New("bench: --tokens and --length are at least 2, --steps at least 1")
	}
	for _, n := range f.growth {
		if n < 2 || n > f.tokens {
			return nil, fmt.Errorf("bench: --growth %d: lengths lie between 2 and --tokens %d", n, f.tokens)
		}
	}
	var from []int
	if f.lengths == "" {
		from = []int{f.length}
	} else {
		file, err := os.Open(f.lengths)
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		defer file.Close()
		if from, err = readLengths(file, f.lengths); err != nil {
			return nil, err
		}
	}
	for _, n := range from {
		if n < 1 {
			return nil, fmt.Errorf("bench: %s holds a length of %d", f.lengths, n)
		}
	}
	return fill(from, f.tokens), nil
}

// fill repeats lengths until they hold tokens tokens, cutting the last.
func fill(lengths []int, tokens int) []int {
	var out []int
	for i := 0; tokens > 0; i++ {
		n := min(lengths[i%len(lengths)], tokens)
		out = append(out, n)
		tokens -= n
	}
	return out
}

func benchPack(lengths []int, vocab int) datasets.Pack {
	p := datasets.Pack{CuSeqlens: []int32{0}}
	r := datasets.NewRand(1, 0)
	for _, n := range lengths {
		for range n {
			p.InputIDs = append(p.InputIDs, int32(r.IntN(vocab)))
		}
		p.CuSeqlens = append(p.CuSeqlens, int32(len(p.InputIDs)))
	}
	return p
}

// stepFLOPs counts what the model needs for a step: 6 a parameter and token for the matrices (the embedding's
// look-up is none), and 12·H·E a layer for each pair of tokens of which one attends to the other: two products forward,
// four backward. Recomputation is not counted.
func stepFLOPs(c *llama.Config, params int, lengths []int) float64 {
	matrices := float64(params)
	if !c.Tied {
		matrices -= float64(c.Vocab * c.Hidden)
	}
	var tokens float64
	for _, n := range lengths {
		tokens += float64(n)
	}
	return 6*matrices*tokens + 12*float64(c.Heads*c.HeadDim)*attendedPairs(c, lengths)
}

// attendedPairs counts the pairs of a query and a key that it sees, over all layers, for one head.
func attendedPairs(c *llama.Config, lengths []int) (pairs float64) {
	for i := range c.Layers {
		for _, n := range lengths {
			seen := float64(n)
			if w := c.Window(i); w > 0 {
				seen = min(seen, float64(w))
			}
			pairs += seen*(seen+1)/2 + (float64(n)-seen)*seen
		}
	}
	return pairs
}

// roofline relates each operation's speed to what its intensity allows.
func roofline(stats []gpu.OpStats, step float64, peaks gpu.Peaks) []benchPart {
	var parts []benchPart
	rest := step
	for _, s := range stats {
		p := benchPart{Part: s.Op, Seconds: s.Seconds, Share: s.Seconds / step}
		if s.Seconds > 0 {
			p.GFLOPS, p.GBps = s.FLOPs/s.Seconds/1e9, s.Bytes/s.Seconds/1e9
		}
		if s.Bytes > 0 {
			p.Intensity = s.FLOPs / s.Bytes
		}
		switch memory := peaks.Bandwidth * p.Intensity; {
		case peaks.FLOPS == 0 || s.Seconds == 0:
		case s.FLOPs > 0:
			p.OfRoof = p.GFLOPS * 1e9 / min(peaks.FLOPS, memory)
		case s.Bytes > 0:
			p.OfRoof = p.GBps * 1e9 / peaks.Bandwidth
		}
		rest -= s.Seconds
		parts = append(parts, p)
	}
	return append(parts, benchPart{Part: "between operations", Seconds: max(0, rest), Share: max(0, rest) / step})
}

func printRoofline(w io.Writer, r benchResult) {
	fmt.Fprintf(w, "%s: %.0f tokens/s, %.1f GFLOP/s (%.0f %% of %.0f), %.1f GB/s memory\n", r.Device.Name, r.TokensPerSecond, r.GFLOPS, 100*r.MFU, r.PeakGFLOPS, r.PeakGBps)
	fmt.Fprintf(w, "%-18s %9s %6s %9s %8s %10s %8s\n", "part", "ms", "share", "GFLOP/s", "GB/s", "FLOP/byte", "of roof")
	for _, p := range r.Parts {
		dash := func(x float64, format string) string {
			if x == 0 {
				return "–"
			}
			return fmt.Sprintf(format, x)
		}
		fmt.Fprintf(w, "%-18s %9.2f %5.1f%% %9s %8s %10s %8s\n", p.Part, 1e3*p.Seconds, 100*p.Share,
			dash(p.GFLOPS, "%.1f"), dash(p.GBps, "%.1f"), dash(p.Intensity, "%.1f"), dash(100*p.OfRoof, "%.0f %%"))
	}
	if slices.ContainsFunc(r.Parts, func(p benchPart) bool { return p.OfRoof > 1 }) {
		fmt.Fprintln(w, "of roof above 100 %: the part's data lay in a cache; the roof is that of main memory")
	}
}

// peakMemory returns the most memory that the process has held, 0 where the system does not tell.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		return int64(ms.Sys)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
