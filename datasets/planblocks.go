package datasets

import (
	"fmt"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// blockSequences is BatchesParams.Block where it is not set. A block takes a second or so and a few megabytes.
const blockSequences = 1 << 20

// stepSequences is how many sequences every step has, 0 where that follows from the packs.
func (p BatchesParams) stepSequences() int {
	switch {
	case p.SequencesPerStep > 0:
		return p.SequencesPerStep
	case p.Method == MethodPacking:
		return 0
	}
	return p.BatchSize * p.Accumulate
}

// blockSize is a whole number of steps where steps have a number of sequences: naive plans, and those with SequencesPerStep, then do not
// depend on it at all.
func (p BatchesParams) blockSize() int {
	size := p.Block
	if size == 0 {
		size = blockSequences
	}
	if step := p.stepSequences(); step > 0 {
		size = max(1, size/step) * step
	}
	return size
}

// blocksOf is the number of blocks of n sequences. The last one takes what is left over, so that none is small.
func (p BatchesParams) blocksOf(n int) int {
	if p.Compat == CompatTHUDM {
		return 1
	}
	return max(1, n/p.blockSize())
}

// PlanBlocks returns how many blocks an epoch over sequences of the given lengths has.
func PlanBlocks(lengths []int, p BatchesParams) (int, error) {
	e, err := newEpoch(lengths, p, 0)
	if err != nil {
		return 0, err
	}
	return e.p.blocksOf(e.kept), nil
}

// NewPlan plans one epoch (0, 1, …) over sequences of the given lengths in tokens. The
// plan is a function of lengths, p and epoch alone; it knows nothing of devices.
//
// The epoch's order is Shuffle's with PCG seeded by p.Seed and the epoch. Its blocks (see BatchesParams.Block), runs of that
// order, are planned one by one and follow each other; each ends with its own partial step.
func NewPlan(lengths []int, p BatchesParams, epoch int) (Plan, error) {
	e, err := newEpoch(lengths, p, epoch)
	if err != nil {
		return Plan{}, err
	}
	if e.p.Compat == CompatTHUDM {
		return thudmPlan(lengths, e.p, NewRand(e.p.Seed, uint64(epoch)))
	}
	order, rng := e.shuffled()
	blocks := make([]Plan, e.p.blocksOf(len(order)))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for b := range blocks {
		group.Go(func() error {
			blocks[b] = e.block(order, rng, b, len(blocks))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Plan{}, err
	}
	return JoinPlans(blocks), nil
}

// PlanBlock plans one block of an epoch, as NewPlan does: the blocks' plans joined are its plan. The first one has the dropped
// sequences of the whole epoch.
func PlanBlock(lengths []int, p BatchesParams, epoch, block int) (Plan, error) {
	e, err := newEpoch(lengths, p, epoch)
	if err != nil {
		return Plan{}, err
	}
	blocks := e.p.blocksOf(e.kept)
	if block < 0 || block >= blocks {
		return Plan{}, fmt.Errorf("plan: there is no block %d of %d", block, blocks)
	}
	if blocks == 1 {
		return NewPlan(lengths, p, epoch)
	}
	order, rng := e.shuffled()
	return e.block(order, rng, block, blocks), nil
}

// JoinPlans puts the plans of an epoch's blocks one after the other.
func JoinPlans(blocks []Plan) Plan {
	if len(blocks) == 1 {
		return blocks[0]
	}
	var all Plan
	for i, b := range blocks {
		if i == 0 {
			all.Method, all.MaxLength, all.OverLength = b.Method, b.MaxLength, b.OverLength
			all.grow(len(blocks)*len(b.IDs), len(blocks)*len(b.MicroBatchEnds), len(blocks)*len(b.StepEnds))
		}
		ids, batches := int32(len(all.IDs)), int32(len(all.MicroBatchEnds))
		all.IDs = append(all.IDs, b.IDs...)
		for _, end := range b.MicroBatchEnds {
			all.MicroBatchEnds = append(all.MicroBatchEnds, ids+end)
		}
		for _, end := range b.StepEnds {
			all.StepEnds = append(all.StepEnds, batches+end)
		}
		all.Dropped = append(all.Dropped, b.Dropped...)
	}
	return all
}

// epochPlan is what the blocks of an epoch share.
type epochPlan struct {
	p       BatchesParams
	number  int
	clipped []int32 // lengths as trained; 0 for those dropped
	kept    int
	dropped []int32
}

// newEpoch checks the parameters and the lengths.
func newEpoch(lengths []int, p BatchesParams, epoch int) (*epochPlan, error) {
	p = p.Defaults()
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if len(lengths) == 0 {
		return nil, fmt.Errorf("plan: there are no sequences")
	}
	if len(lengths) > math.MaxInt32 {
		return nil, fmt.Errorf("plan: %d sequences are more than %d; train on fewer, one after the other", len(lengths), math.MaxInt32)
	}
	e := &epochPlan{p: p, number: epoch}
	if p.Compat == CompatTHUDM {
		return e, nil // it has rules of its own
	}
	e.clipped = make([]int32, len(lengths))
	for i, n := range lengths {
		switch {
		case n < 1:
			return nil, fmt.Errorf("plan: sequence %d has %d tokens; every sequence needs at least one", i, n)
		case n <= p.MaxLength:
			e.clipped[i] = int32(n)
		case p.OverLength == ErrorOverLength:
			return nil, &OverLengthError{Sequence: i, Length: n, MaxLength: p.MaxLength}
		case p.OverLength == DropOverLength:
			e.dropped = append(e.dropped, int32(i))
		default:
			e.clipped[i] = int32(p.MaxLength)
		}
	}
	if e.kept = len(lengths) - len(e.dropped); e.kept == 0 {
		return nil, fmt.Errorf("plan: all %d sequences are longer than max_length %d; raise it or set over_length: truncate-right", len(lengths), p.MaxLength)
	}
	return e, nil
}

// shuffled is the epoch's order, and the generator that drew it.
func (e *epochPlan) shuffled() ([]int32, *Rand) {
	rng := NewRand(e.p.Seed, uint64(e.number))
	order := make([]int32, 0, e.kept)
	for i, n := range e.clipped {
		if n > 0 {
			order = append(order, int32(i))
		}
	}
	Shuffle(rng, order)
	return order, rng
}

// block plans one run of the order. An only block goes on with the generator of the order, several have one each.
func (e *epochPlan) block(order []int32, rng *Rand, b, blocks int) Plan {
	plan := Plan{Method: e.p.Method, MaxLength: e.p.MaxLength, OverLength: e.p.OverLength}
	if b == 0 {
		plan.Dropped = e.dropped
	}
	if blocks > 1 {
		size := e.p.blockSize()
		from, to := b*size, (b+1)*size
		if b == blocks-1 {
			to = len(order)
		}
		order, rng = order[from:to:to], NewRand(e.p.Seed, uint64(e.number)|uint64(b+1)<<32)
	}
	if e.p.Method == MethodPacking {
		plan.pack(order, e.clipped, e.p, rng)
	} else {
		plan.pad(order, e.clipped, e.p, rng)
	}
	return plan
}
