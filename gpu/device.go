// Package gpu defines what a device must compute for a LLaMA-type model to train and
// generate. gpu/host implements it in Go and assembly and is the oracle of every other
// device (gpu/devicetest is the suite that all pass); gpu/cuda implements it with CUDA.
//
// Shapes: T tokens of a micro-batch, sequences end to end; D model width; F feed-forward
// width; H query heads; G key/value heads (H is a multiple of G); E head width; V vocabulary.
// Matrices are row-major and dense; a weight is [out, in] as in Hugging Face.
//
// Operations are queued in order on the device and report nothing themselves; the first
// failure (a shape that does not fit, memory, a lost device) sticks, turns all later ones into no-ops,
// and Sync returns it. "+=" means that the result is added to what the buffer holds.
//
// Reductions have a fixed order: one device class gives the same bits for the same
// input, whatever the number of threads, and a token's result does not depend on the
// contents of other sequences in its micro-batch.
package gpu

import "context"

// DType is the element type of a Buffer.
type DType uint8

// Element types.
const (
	Float32 DType = iota
	Float64
	BFloat16
	// UInt8 holds codes of optimizer states, integers from 0 to 255. Only memory operations and AdamW8 take it.
	UInt8
)

// String returns the name used in configurations: f32, f64, bf16.
func (t DType) String() string {
	switch t {
	case Float32:
		return "f32"
	case Float64:
		return "f64"
	case BFloat16:
		return "bf16"
	case UInt8:
		return "u8"
	}
	return "unknown"
}

// Size returns the bytes of one element.
func (t DType) Size() int {
	switch t {
	case Float64:
		return 8
	case BFloat16:
		return 2
	case UInt8:
		return 1
	}
	return 4
}

// Buffer is a block of device memory of Len elements. Slices of it share its memory.
type Buffer interface {
	Len() int
	DType() DType
	// Slice returns elements [from, to), sharing memory.
	Slice(from, to int) Buffer
}

// Info describes a device to people and to manifests.
type Info struct {
	Kind    string `json:"kind"`  // "host" or "cuda"
	Name    string `json:"name"`  // processor or card
	Class   string `json:"class"` // results are bit-identical within a class
	Driver  string `json:"driver,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	Threads int    `json:"threads,omitempty"`
	Memory  int64  `json:"memory"` // bytes usable
	// HostMemory is what the host can pin for the device; 0 where the device computes in the host's memory, or unknown.
	HostMemory int64 `json:"host_memory,omitempty"`
}

// Layout says which elements of a head rotary embedding pairs.
type Layout uint8

// Rotary layouts.
const (
	// RotateHalf pairs element e with e + rotary/2 (LLaMA in Hugging Face, Mistral, Qwen).
	RotateHalf Layout = iota
	// Interleaved pairs element 2e with 2e+1 (ChatGLM).
	Interleaved
)

// AttentionShape describes one block-diagonal causal attention.
type AttentionShape struct {
	Heads, KVHeads, HeadDim int
	// Scale multiplies q·k, usually 1/√E; float64, so that proofs in that type do not round it.
	Scale float64
	// Window limits a query to its last Window keys, itself included; 0 means all.
	Window int
	// CuSeqlens bounds the sequences, [0, …, T]. No device keeps it.
	CuSeqlens []int32
}

// Linear is y = x wᵀ (+ bias) with w [Out, In].
type Linear struct {
	In, Out int
	W, Bias Buffer // Bias may be nil
}

// AdamW are the hyper-parameters of one update; Step counts from 1.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	Step                               int
	// GradScale multiplies the gradient before it is used (clipping).
	GradScale float64
	// Seed and First belong to AdamW8: its random numbers depend on them, on Step and on an element's place in the model,
	// which is First plus its place in the buffers.
	Seed  uint64
	First int
}

// Device computes on its own memory. It is used by one goroutine at a time.
//
// In a Float32 or Float64 model all buffers have that type. In a BFloat16 model weights,
// activations and their gradients are BFloat16; gradients of weights (dw, dbias, dtable), rstd, lse, cos and sin, and
// AdamW's w, g, m and v are Float32.
type Device interface {
	Info() Info
	// Supports reports whether buffers of type t can be computed with.
	Supports(t DType) bool

	// Alloc returns n zero elements. Free gives them back; slices of them are then dead.
	Alloc(n int, t DType) (Buffer, error)
	Free(Buffer)
	// Upload and Download convert to and from the buffer's type; lengths must agree.
	Upload(dst Buffer, src []float32)
	Upload64(dst Buffer, src []float64)
	Download(dst []float32, src Buffer)
	Download64(dst []float64, src Buffer)
	// Copy copies src to dst of the same length, rounding to nearest even where dst's type is
	// narrower (master weights to computing ones).
	Copy(dst, src Buffer)
	Zero(Buffer)
	// Sync waits for all queued operations and transfers and returns the first failure.
	Sync() error

	// AllocHost returns n zero elements of host memory that Transfer reaches at full speed. Upload, Download, Zero and Free take
	// it as well; operations that compute refuse it.
	AllocHost(n int, t DType) (HostBuffer, error)
	// Transfer copies src to dst, of the same type and length, one of them host memory, beside the operations: it begins when
	// what was queued before it has ended, and until Await of its event what is queued after it must neither write src nor
	// touch dst. Transfers in one direction run in order, those in different directions do not wait for each other.
	Transfer(dst, src Buffer) Event
	// Await lets what is queued from now on wait for a transfer's end, without waiting itself. Await of nil does nothing.
	Await(Event)
	// Close frees everything.
	Close() error

	// WeightsChanged tells that weights were written, so that packed copies of
	// them are made anew. AdamW and Upload to a weight imply it.
	WeightsChanged()

	// Embedding: y[t] = table[ids[t]], y [T,D], table [V,D].
	Embedding(y, table Buffer, ids []int32, d int)
	// EmbeddingGrad: dtable[ids[t]] += dy[t], in order of t.
	EmbeddingGrad(dtable, dy Buffer, ids []int32, d int)

	// RMSNorm: y = x · rstd · w by rows of d, rstd = 1/√(mean x² + eps) kept in rstd [rows].
	RMSNorm(y, rstd, x, w Buffer, d int, eps float64)
	// RMSNormGrad: dx += ∂x, dw += ∂w (dw may be nil).
	RMSNormGrad(dx, dw, dy, x, w, rstd Buffer, d int)

	// Linear: y = x wᵀ + bias, x [T,In], y [T,Out].
	Linear(y, x Buffer, l Linear)
	// LinearGradInput: dx = dy w, or dx += with accumulate.
	LinearGradInput(dx, dy Buffer, l Linear, accumulate bool)
	// LinearGradWeight: dw += dyᵀ x, dbias += Σ_t dy (dbias may be nil).
	LinearGradWeight(dw, dbias, dy, x Buffer, l Linear)

	// Rope rotates the first rotary elements of each of the heads in x [T, heads, E] in place by the angles
	// of the positions. cos and sin are [maxPos, rotary/2]; inverse rotates back (the gradient).
	Rope(x, cos, sin Buffer, positions []int32, heads, e, rotary int, layout Layout, inverse bool)

	// Attention: y [T,H,E] from q [T,H,E], k and v [T,G,E]; lse [H,T] keeps the
	// log-sum-exp of each row for the gradient (float32, or float64 in a float64 model).
	Attention(y, lse, q, k, v Buffer, s AttentionShape)
	// AttentionGrad: dq, dk, dv are written (not added to).
	AttentionGrad(dq, dk, dv, dy, y, lse, q, k, v Buffer, s AttentionShape)
	// AttentionCached: y [n,H,E] for n new tokens of one sequence whose keys and values, the new ones
	// included, are the first `length` rows of k and v [capacity,G,E]. Causal among the new ones.
	AttentionCached(y, q, k, v Buffer, n, length int, s AttentionShape)

	// AttentionStep takes one new token of each of several sequences: row i of k and v [n,G,E] is written to the last row,
	// Length−1, of caches[i], and y[i] [H,E] is the attention of q[i] to the rows of that cache, as by AttentionCached
	// and with its bits, whatever the other sequences are.
	AttentionStep(y, q, k, v Buffer, caches []CachedRows, s AttentionShape)

	// SwiGLU: y = silu(gate) · up. SwiGLUGrad writes dgate and dup.
	SwiGLU(y, gate, up Buffer)
	SwiGLUGrad(dgate, dup, dy, gate, up Buffer)
	// Add: y += x.
	Add(y, x Buffer)

	// CrossEntropy fuses the language-model head with the weighted loss, in chunks so that the
	// logits [T,V] never exist at once: for target[t] ≥ 0, nll[t] = logsumexp(h[t] wᵀ) − (h[t] wᵀ)[target[t]],
	// 0 elsewhere. With dh not nil also dh[t] = coef[t] ∂nll[t]/∂h[t] (written) and dw += the same for w (dw may be nil).
	// nll and coef are on the host: [T], Σ coef·nll is the step's share of the loss.
	CrossEntropy(nll []float64, dh, dw, h Buffer, head Linear, targets []int32, coef []float64)

	// SquaredNorm returns Σ g² in a fixed order (it synchronises).
	SquaredNorm(g Buffer) float64
	// AdamW updates weights w and moments m, v from gradient g (PyTorch's AdamW formulas).
	AdamW(w, g, m, v Buffer, p AdamW)
	// AdamW8 is AdamW with moments of eight bits: the update itself is that of AdamW, in the type of w and g; then the moments
	// are rounded stochastically to the codes of Quantized.
	AdamW8(w, g Buffer, m, v Quantized, p AdamW)
}

// Opener opens the device named "auto", "host" or "cuda[:N]"; worker and starter are wired with it.
type Opener func(ctx context.Context, name string) (Device, error)
