// Bench measures training and decoding on a device against the machine's limits, kernel by kernel and step by step. rival.py beside
// it does the same step in PyTorch, on the same packs.
//
//	bench kernels               each operation against its roofline
//	bench step -shape 7b -tokens 65536
//	bench decode -shape 7b -tokens 65536
//	bench checkpoint            what writing one costs the steps beside it
//	bench packs -tokens 65536   the lengths of a pack's sequences, for the rival
//	bench soak -minutes 5       steps in a row; memory must stay flat
//	bench day                   everything, each part within its time (make cuda-day prepares it); -from 3, -only 5, -budget 20m
//
// It runs on the host device too (-device host, -shape tiny), which is how it is tried without a card.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are the flags that all parts share.
type settings struct {
	device  string
	shape   string
	tokens  int
	steps   int
	minutes float64
	options string
	fast    bool
	log     string
	from    int
	only    int
	budget  time.Duration
	out     io.Writer
}

// shapes are models of the LLaMA family: tiny for tries, the published 1.3B and Llama-2-7B.
var shapes = map[string]llama.Shape{
	"tiny": {Dim: 128, Layers: 2, Heads: 2, KVHeads: 2, FeedForward: 344, Vocab: 512, Context: 65536},
	"1.3b": {Dim: 2048, Layers: 24, Heads: 16, KVHeads: 16, FeedForward: 5504, Vocab: 32000, Context: 65536},
	"7b":   {Dim: 4096, Layers: 32, Heads: 32, KVHeads: 32, FeedForward: 11008, Vocab: 32000, Context: 65536},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	parts := map[string]func(context.Context, settings) error{
		"kernels": kernels, "step": step, "decode": decode, "packs": packs, "soak": soak, "checkpoint": checkpoint, "day": day,
	}
	if len(args) == 0 || parts[args[0]] == nil {
		return fmt.Errorf("usage: bench kernels|step|decode|checkpoint|packs|soak|day [flags]; bench step -h lists the flags")
	}
	s := settings{out: out}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.StringVar(&s.device, "device", "cuda", "device: cuda[:N] or host")
	f.StringVar(&s.shape, "shape", "1.3b", "model: tiny, 1.3b or 7b")
	f.IntVar(&s.tokens, "tokens", 8192, "tokens of a pack, or of a prompt")
	f.IntVar(&s.steps, "steps", 5, "steps that are timed, after two that are not")
	f.Float64Var(&s.minutes, "minutes", 5, "length of the soak")
	f.StringVar(&s.options, "options", "", `training options as JSON, over the defaults of the benchmark, e.g. {"recompute":"layer"}`)
	f.BoolVar(&s.fast, "fast", false, "gradients of attention in any order: faster, and not the same bits every time")
	if args[0] == "day" {
		f.StringVar(&s.log, "log", "cuda-day.log", "file that keeps what is shown; it is written as it comes, behind what it holds")
		f.IntVar(&s.from, "from", 1, "step to begin with, 1 to 7")
		f.IntVar(&s.only, "only", 0, "the one step to run; 0: all")
		f.DurationVar(&s.budget, "budget", 0, "time for all, e.g. 20m: no part runs past it; 0: each part to its own limit")
	}
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if _, ok := shapes[s.shape]; !ok {
		return fmt.Errorf("shape %q is not known; use tiny, 1.3b or 7b", s.shape)
	}
	return parts[args[0]](ctx, s)
}

// deviceName is the device's with the modes that flags add.
func (s settings) deviceName() string {
	kind, rest, _ := strings.Cut(s.device, ":")
	if !s.fast || kind != "cuda" || slices.Contains(strings.Split(rest, ","), "fast") {
		return s.device
	}
	return "cuda:" + rest + ",fast"
}

// open opens the device.
func (s settings) open(ctx context.Context) (gpu.Device, error) {
	d, err := devices.Open(ctx, s.deviceName())
	if err != nil {
		return nil, err
	}
	i := d.Info()
	fmt.Fprintf(s.out, "%s, %s, %s, %.1f GiB usable\n", i.Name, i.Class, i.Driver, float64(i.Memory)/(1<<30))
	return d, nil
}

// dtype is bfloat16 where the device has it.
func dtype(d gpu.Device) gpu.DType {
	if d.Supports(gpu.BFloat16) {
		return gpu.BFloat16
	}
	return gpu.Float32
}

// limits are the edges of the roofline: what the card's data sheet says, or what the host measures.
func limits(d gpu.Device) (flops, bandwidth float64) {
	if m, ok := d.(gpu.PeakMeter); ok {
		p := m.Peak()
		return p.FLOPS, p.Bandwidth
	}
	name := d.Info().Name
	switch {
	case strings.Contains(name, "H200"):
		return 989e12, 4.8e12
	case strings.Contains(name, "PCIe"):
		return 756e12, 2.0e12
	case strings.Contains(name, "A100"):
		return 312e12, 2.0e12
	}
	return 989e12, 3.35e12 // H100 SXM, dense bfloat16
}
