package llm

import (
	"context"
	"fmt"
	"sync"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// BudgetError stops a stage before a request that could pass its cap.
type BudgetError struct {
	Cap, Spent, Next float64 // USD
}

// Error says what was spent and that it is not lost.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("%.4f of at most %.4f USD are spent or promised, and the next request may cost up to %.4f; all replies are kept: raise max_cost_usd and run again, only what is missing is paid for", e.Spent, e.Cap, e.Next)
}

// Budget caps what the replies of one stage cost, over all its shards and workers. Each part of the stage holds an allowance in a ledger
// in the store, and raises it before it spends more: the allowances' sum never passes the cap. A part that is done, or begun again,
// gives back what it did not spend.
type Budget struct {
	store   *artifact.Store
	journal string
	entry   string
	part    string
	cap     float64

	mu       sync.Mutex
	allowed  float64 // in the ledger
	used     float64 // by replies
	promised float64 // to requests under way
}

// ledger is what the parts of a stage may spend.
type ledger struct {
	Allowed map[string]float64 `json:"allowed"` // USD by part
}

// NewBudget returns the budget of one part of the stage with that action key. Without a cap it only counts.
func NewBudget(store *artifact.Store, journal, key, part string, cap float64) *Budget {
	return &Budget{store: store, journal: journal, entry: "budget/" + key, part: part, cap: cap}
}

// promise takes the most a request can cost out of the budget.
func (b *Budget) promise(ctx context.Context, most float64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cap <= 0 {
		b.promised += most
		return nil
	}
	if need := b.used + b.promised + most; need > b.allowed {
		// A hundredth of the cap at a time keeps writes of the ledger rare; near the cap every request counts.
		if err := b.allow(ctx, need, need+b.cap/100); err != nil {
			return err
		}
	}
	b.promised += most
	return nil
}

// allow raises this part's allowance to enough, or at least to need.
func (b *Budget) allow(ctx context.Context, need, enough float64) error {
	allowed := 0.0
	err := artifact.UpdateEntry(ctx, b.store, b.journal, b.entry, func(l *ledger) error {
		others := 0.0
		for part, usd := range l.Allowed {
			if part != b.part {
				others += usd
			}
		}
		if others+need > b.cap {
			return &BudgetError{Cap: b.cap, Spent: others + b.used + b.promised, Next: need - b.used - b.promised}
		}
		allowed = min(enough, b.cap-others)
		if l.Allowed == nil {
			l.Allowed = map[string]float64{}
		}
		l.Allowed[b.part] = allowed
		return nil
	})
	if err == nil {
		b.allowed = allowed
	}
	return err
}

// settle replaces a promise by what the reply cost; 0 for a request without reply.
func (b *Budget) settle(most, cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.promised -= most
	b.used += cost
}

// Used is what the replies cost so far.
func (b *Budget) Used() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Close gives back what the part may still spend.
func (b *Budget) Close(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cap <= 0 {
		return nil
	}
	return artifact.UpdateEntry(ctx, b.store, b.journal, b.entry, func(l *ledger) error {
		if l.Allowed == nil {
			l.Allowed = map[string]float64{}
		}
		l.Allowed[b.part] = b.used
		return nil
	})
}
