package datasets

import "slices"

// Method names how sequences become micro-batches.
type Method string

// The batching methods of the paper.
const (
	// MethodNaive shuffles and pads each micro-batch to its longest row.
	MethodNaive Method = "naive"
	// MethodSorted sorts by length, cuts into consecutive groups of one step each
	// and takes the groups in random order, each once an epoch. Rows are padded.
	MethodSorted Method = "sorted"
	// MethodPacking lays sequences end to end in packs of at most MaxLength tokens.
	MethodPacking Method = "packing"
)

// Packing names how MethodPacking fills its packs.
type Packing string

// The packing algorithms. All but best-fit-decreasing read the shuffled order as a stream.
const (
	// PackingDefault is best-fit over openPacks packs, a best-fit-decreasing finish
	// for those open at the end, and finished packs dealt over windowSteps
	// steps so that every step has about as many sequences. See BatchesParams.Displacement.
	PackingDefault Packing = "default"
	// PackingNextFit closes the pack as soon as a sequence does not fit (the paper).
	PackingNextFit Packing = "next-fit"
	// PackingBestFit is the default without dealing: steps are packs in the order they closed.
	PackingBestFit Packing = "best-fit"
	// PackingBestFitDecreasing sorts the whole epoch longest first: the fullest
	// packs, and very uneven steps, for alike lengths meet in a pack.
	PackingBestFitDecreasing Packing = "best-fit-decreasing"
)

// OverLength names what happens to a sequence longer than the maximum.
type OverLength string

// The policies for over-long sequences.
const (
	// TruncateRight keeps the first MaxLength tokens (the paper).
	TruncateRight OverLength = "truncate-right"
	// TruncateMiddle keeps the first and last halves of MaxLength tokens, so
	// that an answer at the end survives a long document before it.
	TruncateMiddle OverLength = "truncate-middle"
	// DropOverLength leaves the sequence out; the ledger counts its tokens as dropped.
	DropOverLength OverLength = "drop"
	// ErrorOverLength fails.
	ErrorOverLength OverLength = "error"
)

// Balance names what a packing plan makes even.
type Balance string

// What plans balance.
const (
	// BalanceTokens fills packs by tokens and deals packs so that steps have equally many sequences.
	BalanceTokens Balance = "tokens"
	// BalanceCompute puts packs of like cost side by side, eight at most, so that devices that compute them at the same time wait little for
	// each other; n tokens of one sequence cost n + n²/(12 width), for attention is quadratic. Where steps have several such rounds, rounds
	// are dealt so that steps have equally many sequences; where they have one, the numbers of sequences vary with the packs. With
	// SequencesPerStep it evens out the packs inside each step instead, as far as they fit.
	BalanceCompute Balance = "compute"
)

// CompatTHUDM reproduces the plans of the paper's published training code. See THUDMPlan.
const CompatTHUDM = "thudm"

// BatchesParams are the parameters of the batches stage. The zero value with Defaults
// is the paper's packing with our default filling.
type BatchesParams struct {
	// Method is how sequences become micro-batches; default packing.
	Method Method `yaml:"method" json:"method"`
	// Packing is how packs are filled; only for MethodPacking.
	Packing Packing `yaml:"packing,omitempty" json:"packing,omitempty"`
	// MaxLength is the most tokens a sequence has, and a pack; default 65,536.
	MaxLength int `yaml:"max_length" json:"max_length"`
	// BatchSize is the number of sequences a micro-batch (naive, sorted) or of
	// packs a step (packing); default 8. Packing with SequencesPerStep does not use it.
	BatchSize int `yaml:"batch_size,omitempty" json:"batch_size,omitempty"`
	// Accumulate is the number of micro-batches a step for naive and sorted; default 1.
	Accumulate int `yaml:"accumulate,omitempty" json:"accumulate,omitempty"`
	// SequencesPerStep, when set, gives every step that many sequences, by every
	// method (the last step has what is left). Naive and sorted cut the step into micro-batches of
	// BatchSize rows; packing packs each step's sequences into as many packs as they need. With one
	// seed, naive and packing then train the same sequences in the same steps, and sorted takes equally many
	// steps: all else is equal.
	SequencesPerStep int `yaml:"sequences_per_step,omitempty" json:"sequences_per_step,omitempty"`
	// Seed determines every random choice, with the epoch's number.
	Seed uint64 `yaml:"seed" json:"seed"`
	// Epochs is how often every sequence is trained on; default 2.
	Epochs int `yaml:"epochs" json:"epochs"`
	// OverLength is what happens to longer sequences; default truncate-right.
	OverLength OverLength `yaml:"over_length" json:"over_length"`
	// Balance is what a packing plan makes even; default tokens.
	Balance Balance `yaml:"balance,omitempty" json:"balance,omitempty"`
	// ComputeWidth is the model width that BalanceCompute assumes; default 4,096.
	ComputeWidth int `yaml:"compute_width,omitempty" json:"compute_width,omitempty"`
	// Compat is empty or CompatTHUDM.
	Compat string `yaml:"compat,omitempty" json:"compat,omitempty"`
	// Block is how many sequences of an epoch's shuffled order are planned together, each such block as an epoch of its own: blocks are
	// planned at once, on as many cores and workers as there are. 0 means 1,048,576; an epoch of fewer than twice as many is one block.
	Block int `yaml:"block,omitempty" json:"block,omitempty"`
}

// Defaults returns p with unset fields filled in. Fields that p's method does not use stay
// unset, so that they are not part of what a result means.
func (p BatchesParams) Defaults() BatchesParams {
	setDefault(&p.Method, MethodPacking)
	setDefault(&p.MaxLength, 65536)
	setDefault(&p.Epochs, 2)
	setDefault(&p.OverLength, TruncateRight)
	if p.Method == MethodPacking {
		setDefault(&p.Packing, PackingDefault)
		setDefault(&p.Balance, BalanceTokens)
		if p.Balance == BalanceCompute {
			setDefault(&p.ComputeWidth, 4096)
		}
		if p.SequencesPerStep == 0 {
			setDefault(&p.BatchSize, 8)
		}
		return p
	}
	setDefault(&p.BatchSize, 8)
	if p.SequencesPerStep == 0 {
		setDefault(&p.Accumulate, 1)
	}
	return p
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate says what is wrong with p, after Defaults.
func (p BatchesParams) Validate() error {
	packing := p.Method == MethodPacking
	switch {
	case !slices.Contains([]Method{MethodNaive, MethodSorted, MethodPacking}, p.Method):
		return paramError("method", "%q is not known; use naive, sorted or packing", p.Method)
	case packing && !slices.Contains([]Packing{PackingDefault, PackingNextFit, PackingBestFit, PackingBestFitDecreasing}, p.Packing):
		return paramError("packing", "%q is not known; use default, next-fit, best-fit or best-fit-decreasing", p.Packing)
	case !packing && p.Packing != "":
		return paramError("packing", "%q is set but method is %s; remove it or set method: packing", p.Packing, p.Method)
	case p.MaxLength < 2:
		return paramError("max_length", "%d leaves no token to predict; use at least 2", p.MaxLength)
	case p.MaxLength > 1<<28:
		return paramError("max_length", "%d is more than %d", p.MaxLength, 1<<28)
	case p.BatchSize < 0 || p.BatchSize == 0 && !(packing && p.SequencesPerStep > 0):
		return paramError("batch_size", "%d must be at least 1", p.BatchSize)
	case packing && p.BatchSize > 0 && p.SequencesPerStep > 0:
		return paramError("sequences_per_step", "a packing step has either batch_size packs or sequences_per_step sequences; remove one")
	case p.SequencesPerStep < 0:
		return paramError("sequences_per_step", "%d is negative", p.SequencesPerStep)
	case packing && p.Accumulate != 0:
		return paramError("accumulate", "packing takes batch_size packs a step; remove accumulate")
	case !packing && p.SequencesPerStep == 0 && p.Accumulate < 1:
		return paramError("accumulate", "%d must be at least 1", p.Accumulate)
	case p.SequencesPerStep > 0 && p.Accumulate != 0:
		return paramError("accumulate", "a step has either accumulate micro-batches or sequences_per_step sequences; remove one")
	case p.Epochs < 1:
		return paramError("epochs", "%d must be at least 1", p.Epochs)
	case !p.OverLength.known():
		return paramError("over_length", "%q is not known; use truncate-right, truncate-middle, drop or error", p.OverLength)
	case packing && p.Balance != BalanceTokens && p.Balance != BalanceCompute:
		return paramError("balance", "%q is not known; use tokens or compute", p.Balance)
	case !packing && p.Balance != "":
		return paramError("balance", "%q is set but method is %s; only packing balances", p.Balance, p.Method)
	case p.Balance == BalanceCompute && p.ComputeWidth < 1:
		return paramError("compute_width", "%d must be at least 1", p.ComputeWidth)
	case p.Balance == BalanceCompute && p.SequencesPerStep == 0 && p.Packing != PackingDefault:
		return paramError("balance", "only the default packing deals packs to steps; remove packing: %s or balance: compute", p.Packing)
	case p.Block < 0:
		return paramError("block", "%d is negative", p.Block)
	case p.Compat == CompatTHUDM && p.Block > 0:
		return paramError("block", "compat: thudm plans epochs whole; remove it")
	case p.Compat != "" && p.Compat != CompatTHUDM:
		return paramError("compat", "%q is not known; use thudm or leave it out", p.Compat)
	case p.Compat == CompatTHUDM && p.SequencesPerStep > 0:
		return paramError("sequences_per_step", "compat: thudm has none; use batch_size")
	case p.Compat == CompatTHUDM && p.OverLength != TruncateRight:
		return paramError("over_length", "compat: thudm truncates on the right; remove over_length: %s", p.OverLength)
	}
	return nil
}

func (o OverLength) known() bool {
	return slices.Contains([]OverLength{TruncateRight, TruncateMiddle, DropOverLength, ErrorOverLength}, o)
}

// Displacement bounds how far the default packing moves a sequence from its shuffled place, in
// packs: when a sequence's turn comes and o packs have been opened, the pack it trains in
// stands at most Displacement places from o. A pack is open while at most maxPackAge others are opened,
// at most openPacks are open at once, and dealing moves a pack by less than windowSteps steps. Packs are counted within the
// sequence's block, which no sequence leaves.
func (p BatchesParams) Displacement() int {
	return openPacks + maxPackAge + windowSteps*p.BatchSize
}

// cost is the compute of a sequence of n tokens in units of one token without attention.
// A layer of width d spends about 24 d² multiply-adds on a token and, causally, 2 d n² on attention.
func (p BatchesParams) cost(n int32) float64 {
	return float64(n) + float64(n)*float64(n)/(12*float64(p.ComputeWidth))
}

// pad fills in the steps of a naive or sorted plan.
func (plan *Plan) pad(order, lengths []int32, p BatchesParams, rng *Rand) {
	perStep := p.SequencesPerStep
	if perStep == 0 {
		perStep = p.BatchSize * p.Accumulate
	}
	steps := (len(order) + perStep - 1) / perStep
	stepOrder := Ascending(steps)
	if p.Method == MethodSorted {
		sortByLength(order, lengths)
		Shuffle(rng, stepOrder)
	}
	plan.grow(len(order), (len(order)+p.BatchSize-1)/p.BatchSize+steps, steps)
	for _, s := range stepOrder {
		rows := order[int(s)*perStep : min((int(s)+1)*perStep, len(order))]
		for batch := range slices.Chunk(rows, p.BatchSize) {
			plan.addMicroBatch(batch)
		}
		plan.endStep()
	}
}

// sortByLength orders ids by length, shortest first, ties in the order they came.
func sortByLength(ids, lengths []int32) {
	keys := make([]uint64, len(ids))
	for i, id := range ids {
		keys[i] = uint64(lengths[id])<<32 | uint64(i)
	}
	slices.Sort(keys)
	sorted := make([]int32, len(ids))
	for i, k := range keys {
		sorted[i] = ids[uint32(k)]
	}
	copy(ids, sorted)
}
