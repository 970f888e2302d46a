package llm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// BudgetError stops a run before a request that could pass its cap.
type BudgetError struct {
	Cap, Spent, Next float64 // USD
}

// Error says what was spent and that it is not lost.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("%.4f of at most %.4f USD are spent or promised, and the next request may cost up to %.4f; all replies are kept: raise max_cost_usd and run again, only what is missing is paid for", e.Spent, e.Cap, e.Next)
}

// Budget caps what the replies of an endpoint cost in one run, over all its stages, shards and workers. Each part of the work holds an allowance in a ledger
// in the store, and raises it before it spends more: the allowances' sum never passes the cap. An attempt at a part adds to the
// allowance and takes back only what it added itself and did not spend: what an earlier attempt was allowed stands for what it may have
// spent, and the replies of its that are in the journal are taken to be paid from it.
type Budget struct {
	store *artifact.Store
	entry string
	part  string
	cap   float64

	mu       sync.Mutex
	looked   bool    // earlier is known
	earlier  float64 // USD in the ledger from earlier attempts at this part
	added    float64 // USD that this attempt has in the ledger
	replayed float64 // USD that replies from the journal and lost tries of earlier attempts cost
	spent    float64 // USD that this attempt spent
	promised float64 // USD, to requests under way
}

// ledger is what the parts of a run may spend.
type ledger struct {
	Allowed map[string]float64 `json:"allowed"` // USD by part
}

// Ledger names the ledger of an endpoint in a run. Who asks the same model at the same address with the same key shares it, whatever the
// sampling, the prices and the cap: the teacher and the judge of a run may be one endpoint.
func Ledger(run string, p datasets.EndpointParams) string {
	p = p.Defaults()
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q %q", run, p.Kind, p.BaseURL, p.Model, p.KeyEnv, p.KeyFile)
	return hex.EncodeToString(h.Sum(nil))
}

// NewBudget returns the budget of one part of a run's work, in the ledger of that name. Without a cap it only counts.
func NewBudget(store *artifact.Store, ledger, part string, cap float64) *Budget {
	return &Budget{store: store, entry: "budget/" + ledger, part: part, cap: cap}
}

// own is what this attempt needs to have in the ledger, besides earlier ones.
func (b *Budget) own() float64 { return max(0, b.replayed-b.earlier) + b.spent + b.promised }

// promise takes the most a request can cost out of the budget.
func (b *Budget) promise(ctx context.Context, most float64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cap > 0 {
		if err := b.look(ctx); err != nil {
			return err
		}
		if need := b.own() + most; need > b.added {
			// A hundredth of the cap at a time keeps writes of the ledger rare; near the cap every request counts.
			if err := b.allow(ctx, need, need+b.cap/100); err != nil {
				return err
			}
		}
	}
	b.promised += most
	return nil
}

// look reads what earlier attempts at this part were allowed.
func (b *Budget) look(ctx context.Context) error {
	if b.looked {
		return nil
	}
	var l ledger
	if err := b.store.Entry(ctx, Journal, b.entry, &l); err != nil && !errors.Is(err, artifact.ErrNotFound) {
		return err
	}
	b.earlier, b.looked = l.Allowed[b.part], true
	return nil
}

// allow raises what this attempt has in the ledger to enough, or at least to need.
func (b *Budget) allow(ctx context.Context, need, enough float64) error {
	more := 0.0
	err := artifact.UpdateEntry(ctx, b.store, Journal, b.entry, func(l *ledger) error {
		total := 0.0
		for _, usd := range l.Allowed {
			total += usd
		}
		if total+need-b.added > b.cap {
			return &BudgetError{Cap: b.cap, Spent: total - b.added + b.own(), Next: need - b.own()}
		}
		more = min(enough-b.added, b.cap-total)
		if l.Allowed == nil {
			l.Allowed = map[string]float64{}
		}
		l.Allowed[b.part] += more
		return nil
	})
	if err == nil {
		b.added += more
	}
	return err
}

// settle replaces a promise by what the reply cost; 0 for a request without reply.
func (b *Budget) settle(most, cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.promised -= most
	b.spent += cost
}

// replay notes what an earlier attempt paid.
func (b *Budget) replay(cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replayed += cost
}

// Used is what the replies cost so far.
func (b *Budget) Used() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.replayed + b.spent
}

// Close gives back what this attempt may still spend.
func (b *Budget) Close(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := b.added - b.own()
	if b.cap <= 0 || rest == 0 {
		return nil
	}
	err := artifact.UpdateEntry(ctx, b.store, Journal, b.entry, func(l *ledger) error {
		if l.Allowed == nil {
			l.Allowed = map[string]float64{}
		}
		l.Allowed[b.part] -= rest
		return nil
	})
	if err == nil {
		b.added -= rest
	}
	return err
}
