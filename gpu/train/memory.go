package train

import (
	"fmt"
	"strings"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Memory is an estimate in bytes of what training takes.
type Memory struct {
	Weights     int64 `json:"weights"` // with master weights and the device's packed copies
	Gradients   int64 `json:"gradients"`
	Optimizer   int64 `json:"optimizer"`
	Activations int64 `json:"activations"` // of the largest micro-batch
	Snapshot    int64 `json:"snapshot"`    // a checkpoint on its way out, on the host
	Total       int64 `json:"total"`       // on the device
	Available   int64 `json:"available"`   // 0: unknown
}

// EstimateMemory plans the memory of training a model of config c in micro-batches of up to tokens tokens.
func EstimateMemory(c *llama.Config, opts Options, tokens int, info gpu.Info) (Memory, error) {
	dtype, err := ParseDType(opts.DType)
	if err != nil {
		return Memory{}, err
	}
	n, perToken := llama.MemoryPlan(c, dtype, opts.Recompute == RecomputeLayer)
	size, wide := int64(dtype.Size()), int64(max(4, dtype.Size()))
	m := Memory{
		Weights: n * size, Gradients: n * wide, Optimizer: 2 * n * wide, Activations: perToken * int64(tokens),
		Snapshot: 3 * n * wide, Available: info.Memory,
	}
	if dtype == gpu.BFloat16 {
		m.Weights += n * wide
	}
	if info.Kind == "host" {
		m.Weights += 2 * n * size // packed for products with the weight and with its transpose
	}
	m.Total = m.Weights + m.Gradients + m.Optimizer + m.Activations
	if info.Kind == "host" {
		m.Total += m.Snapshot
	}
	return m, nil
}

// MemoryError refuses a run that does not fit, before it starts.
type MemoryError struct {
	Memory
	Tokens  int
	Advices []string
}

func (e *MemoryError) Error() string {
	gib := func(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
	return fmt.Sprintf("training needs about %s (weights %s, gradients %s, optimizer %s, activations of %d tokens %s) and the device has %s; %s",
		gib(e.Total), gib(e.Weights), gib(e.Gradients), gib(e.Optimizer), e.Tokens, gib(e.Activations), gib(e.Available), strings.Join(e.Advices, ", or "))
}

// CheckMemory estimates and returns a *MemoryError that says what to change if the device has less.
func CheckMemory(c *llama.Config, opts Options, tokens int, info gpu.Info) (Memory, error) {
	m, err := EstimateMemory(c, opts, tokens, info)
	if err != nil || m.Available <= 0 || m.Total <= m.Available {
		return m, err
	}
	e := &MemoryError{Memory: m, Tokens: tokens}
	if opts.Recompute != RecomputeLayer {
		with := opts
		with.Recompute = RecomputeLayer
		if less, err := EstimateMemory(c, with, tokens, info); err == nil && less.Total <= m.Available {
			e.Advices = append(e.Advices, "set recompute: layer")
		}
	}
	if fixed := m.Total - m.Activations; fixed < m.Available && m.Activations > 0 {
		fits := int64(float64(tokens) * float64(m.Available-fixed) / float64(m.Activations))
		e.Advices = append(e.Advices, fmt.Sprintf("use micro-batches of at most %d tokens", fits))
	} else {
		e.Advices = append(e.Advices, "use a smaller model or a device with more memory: the optimizer state alone does not fit")
	}
	return m, e
}
