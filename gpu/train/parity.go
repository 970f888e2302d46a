package train

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
)

// Certificate records that one step's loss and gradient do not depend on how its sequences are laid out: padded,
// sorted, packed, one by one, or split over two ranks.
type Certificate struct {
	DType string `json:"dtype"`
	// Loss is the loss checked: the run's, or longalign for pack, which depends on the packs by definition.
	Loss      datasets.Loss `json:"loss"`
	Tolerance float64       `json:"tolerance"` // relative
	// Sequences of the first step that were used, shortest first, and their tokens; Cut of them were cut to their end.
	Sequences int            `json:"sequences"`
	Tokens    int            `json:"tokens"`
	Cut       int            `json:"cut"`
	Layouts   []LayoutResult `json:"layouts"`
	// Isolated: with one sequence changed, the cross-entropies of its pack-mates keep their bits.
	Isolated bool    `json:"isolated"`
	Holds    bool    `json:"holds"`
	Seconds  float64 `json:"seconds"`
	// Skipped says why nothing was checked.
	Skipped string `json:"skipped,omitempty"`
}

// LayoutResult compares one layout with the first, all sequences in one pack.
type LayoutResult struct {
	Layout       string `json:"layout"`
	Ranks        int    `json:"ranks"`
	MicroBatches int    `json:"micro_batches"`
	Tokens       int    `json:"tokens"` // with padding
	// Loss of the step.
	Loss float64 `json:"loss"`
	// Differences from the first layout: of the loss, and of the gradient as ‖g−g₀‖/‖g₀‖.
	LossDifference     float64 `json:"loss_difference"`
	GradientDifference float64 `json:"gradient_difference"`
}

// ParityError says which layout gives another loss or gradient.
type ParityError struct{ Certificate Certificate }

func (e *ParityError) Error() string {
	for _, l := range e.Certificate.Layouts {
		if !(l.LossDifference <= e.Certificate.Tolerance && l.GradientDifference <= e.Certificate.Tolerance) {
			return fmt.Sprintf("loss parity: the %s layout differs from the packed one by %.1e in the loss and %.1e in the gradient, allowed is %.0e; the device computes something else than it should",
				l.Layout, l.LossDifference, l.GradientDifference, e.Certificate.Tolerance)
		}
	}
	return "loss parity: a sequence changes the cross-entropies of its pack-mates; attention is not block-diagonal on this device"
}

// ParityOptions bound the cost of a certificate.
type ParityOptions struct {
	// Tokens bounds the sequences used; 0 means as many as cost about a second on two cores, between 64 and 1,024.
	Tokens int
	// Params skips larger models; 0 means 100 million.
	Params int
}

type parityLayout struct {
	name  string
	ranks int
	packs []datasets.Pack
}

// Parity checks the layouts on the micro-batches of one step. It uses the model's gradient and leaves it
// zero; weights and optimizer stay as they are. A certificate that does not hold comes with a *ParityError.
func (t *Trainer) Parity(ctx context.Context, packs []datasets.Pack, po ParityOptions) (Certificate, error) {
	begin := time.Now()
	if po.Tokens == 0 {
		const work = 100_000_000_000 // floating-point operations: six layouts at 6 a parameter and token
		po.Tokens = min(1024, max(64, work/36/t.model.NumParams()))
	}
	if po.Params == 0 {
		po.Params = 100e6
	}
	c := Certificate{DType: t.opts.DType, Loss: t.opts.Loss, Tolerance: tolerance(t.model.DType())}
	if c.Loss == datasets.LossPack {
		c.Loss = datasets.LossLongAlign
	}
	for k := range packs {
		if err := packs[k].Validate(t.model.Config().Vocab); err != nil {
			return c, fmt.Errorf("micro-batch %d: %w", k, err)
		}
	}
	seqs := chooseSequences(objective(t.opts.Objective, packs), po.Tokens, &c)
	switch {
	case t.model.NumParams() > po.Params:
		c.Skipped = fmt.Sprintf("the model has more than %d parameters", po.Params)
		return c, nil
	case len(seqs) < 2:
		c.Skipped = "the step has fewer than two sequences with targets"
		return c, nil
	}
	var first []float64
	for _, l := range layouts(seqs) {
		loss, grad, err := t.layoutGradient(ctx, l, c.Loss)
		if err != nil {
			return c, fmt.Errorf("loss parity, %s layout: %w", l.name, err)
		}
		r := LayoutResult{Layout: l.name, Ranks: l.ranks, MicroBatches: len(l.packs), Loss: loss}
		for i := range l.packs {
			r.Tokens += len(l.packs[i].InputIDs)
		}
		if first == nil {
			if first = grad; math.IsNaN(loss) || math.IsInf(loss, 0) {
				t.model.ZeroGrad()
				c.Skipped = "the loss is not finite" // the step itself says more
				return c, nil
			}
		} else {
			r.LossDifference = math.Abs(loss-c.Layouts[0].Loss) / math.Abs(c.Layouts[0].Loss)
			r.GradientDifference = distance(grad, first)
		}
		c.Layouts = append(c.Layouts, r)
	}
	t.model.ZeroGrad()
	var err error
	if c.Isolated, err = t.isolated(seqs); err != nil {
		return c, fmt.Errorf("loss parity: %w", err)
	}
	c.Holds = c.Isolated
	for _, l := range c.Layouts {
		c.Holds = c.Holds && l.LossDifference <= c.Tolerance && l.GradientDifference <= c.Tolerance
	}
	c.Seconds = time.Since(begin).Seconds()
	if !c.Holds {
		return c, &ParityError{c}
	}
	return c, t.dev.Sync()
}

func tolerance(dtype gpu.DType) float64 {
	switch dtype {
	case gpu.Float64:
		return 1e-12
	case gpu.BFloat16:
		return 2e-2
	}
	return 1e-5
}

// row is one sequence on its own.
type row struct {
	ids, labels []int32
	weight      float64
}

// chooseSequences takes sequences with targets, shortest first, up to a number of tokens. Long ones are
// cut to their last quarter of it, so that a step of long sequences is cheap to check too.
func chooseSequences(packs []datasets.Pack, tokens int, c *Certificate) []row {
	var all []row
	longest := max(2, tokens/4)
	cuts := map[int]bool{}
	for k := range packs {
		p := &packs[k]
		targets, counts := p.Targets()
		for i, n := range counts {
			if n == 0 {
				continue
			}
			a, b := int(p.CuSeqlens[i]), int(p.CuSeqlens[i+1])
			for targets[b-2] == datasets.IgnoreIndex {
				b-- // behind the last target, padding or not, nothing counts
			}
			r := row{weight: 1}
			if p.Weights != nil {
				r.weight = p.Weights[i]
			}
			if b-a > longest {
				a = b - longest
				cuts[len(all)] = true
			}
			r.ids = p.InputIDs[a:b]
			r.labels = r.ids
			if p.Labels != nil {
				r.labels = p.Labels[a:b]
			}
			all = append(all, r)
		}
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(x, y int) bool { return len(all[order[x]].ids) < len(all[order[y]].ids) })
	var out []row
	for _, i := range order {
		if c.Tokens+len(all[i].ids) > tokens || len(out) == 16 {
			break
		}
		c.Tokens += len(all[i].ids)
		if cuts[i] {
			c.Cut++
		}
		out = append(out, all[i])
	}
	c.Sequences = len(out)
	return out
}

// layouts lays the sequences, sorted by length, out in the ways that must agree.
func layouts(sorted []row) []parityLayout {
	// Long and short alternate in the shuffled order, so that padding is not trivial.
	var shuffled []row
	for i, j := 0, len(sorted)-1; i <= j; i, j = i+1, j-1 {
		shuffled = append(shuffled, sorted[i])
		if i < j {
			shuffled = append(shuffled, sorted[j])
		}
	}
	n := len(sorted)
	return []parityLayout{
		{"packed", 1, chunks(shuffled, n, false)},
		{"packed in two micro-batches", 1, chunks(shuffled, (n+1)/2, false)},
		{"one by one", 1, chunks(shuffled, 1, false)},
		{"naive, padded", 1, chunks(shuffled, (n+1)/2, true)},
		{"sorted, padded", 1, chunks(sorted, 2, true)},
		{"two ranks", 2, chunks(shuffled, max(1, n/4), false)},
	}
}

func chunks(rows []row, size int, padded bool) []datasets.Pack {
	var out []datasets.Pack
	for group := range slices.Chunk(rows, size) {
		longest := 0
		for _, r := range group {
			longest = max(longest, len(r.ids))
		}
		p := datasets.Pack{CuSeqlens: []int32{0}}
		for _, r := range group {
			p.InputIDs = append(p.InputIDs, r.ids...)
			p.Labels = append(p.Labels, r.labels...)
			for pad := len(r.ids); padded && pad < longest; pad++ {
				p.InputIDs = append(p.InputIDs, 0)
				p.Labels = append(p.Labels, datasets.IgnoreIndex)
			}
			p.CuSeqlens = append(p.CuSeqlens, int32(len(p.InputIDs)))
			p.Weights = append(p.Weights, r.weight)
		}
		out = append(out, p)
	}
	return out
}

// layoutGradient returns the loss and gradient of a layout; ranks take micro-batches in turn and add their gradients
// at the end, as an all-reduce does.
func (t *Trainer) layoutGradient(ctx context.Context, l parityLayout, loss datasets.Loss) (float64, []float64, error) {
	coef, _, _, _, err := coefficients(loss, l.packs, t.model.Config().Vocab)
	if err != nil {
		return 0, nil, err
	}
	var total float64
	sum := make([]float64, t.model.Grads().Len())
	part := make([]float64, len(sum))
	for rank := range l.ranks {
		t.model.ZeroGrad()
		for k := rank; k < len(l.packs); k += l.ranks {
			if err := ctx.Err(); err != nil {
				return 0, nil, err
			}
			b, err := t.model.LossAndGrad(&l.packs[k], coef[k])
			if err != nil {
				return 0, nil, err
			}
			total += b.Loss
		}
		t.dev.Download64(part, t.model.Grads())
		if err := t.dev.Sync(); err != nil {
			return 0, nil, err
		}
		for i, g := range part {
			sum[i] += g
		}
	}
	return total, sum, nil
}

func distance(a, b []float64) float64 {
	var diff, norm float64
	for i := range a {
		diff += (a[i] - b[i]) * (a[i] - b[i])
		norm += b[i] * b[i]
	}
	if norm == 0 {
		return math.Sqrt(diff)
	}
	return math.Sqrt(diff / norm)
}

// isolated changes the tokens of one sequence of a pack and compares the bits of the others' cross-entropies.
func (t *Trainer) isolated(rows []row) (bool, error) {
	p := chunks(rows, len(rows), false)[0]
	before, err := t.model.NLL(&p)
	if err != nil {
		return false, err
	}
	middle := len(rows) / 2
	a, b := p.CuSeqlens[middle], p.CuSeqlens[middle+1]
	for i := a; i < b; i++ {
		p.InputIDs[i] = (p.InputIDs[i] + 1) % int32(t.model.Config().Vocab)
	}
	after, err := t.model.NLL(&p)
	if err != nil {
		return false, err
	}
	for i := range before {
		if (int32(i) < a || int32(i) >= b) && math.Float64bits(before[i]) != math.Float64bits(after[i]) {
			return false, nil
		}
	}
	return true, nil
}
