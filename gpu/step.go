package gpu

import (
	"errors"
	"fmt"
)

// Repeater is a Device to which operations that were queued before in the same way can be sent at once.
type Repeater interface {
	// Repeat runs queue, which queues operations. They do what they would do without; where the same ones were queued by
	// an earlier call, on the same buffers and of the same shapes, they may begin sooner. Queue must not use Repeat itself.
	Repeat(queue func())
}

// CachedRows are the keys and values of one sequence: the first Length rows of Keys and Values [capacity,G,E].
type CachedRows struct {
	Keys, Values Buffer
	Length       int
}

// CheckStep reports operands of AttentionStep that do not fit each other, for devices to call before they begin.
func CheckStep(y, q, k, v Buffer, caches []CachedRows, s AttentionShape) error {
	hq, hk, n := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim, len(caches)
	switch {
	case y == nil || q == nil || k == nil || v == nil:
		return errors.New("y, q, k or v is missing")
	case hq < 1 || hk < 1 || s.Heads%s.KVHeads != 0:
		return fmt.Errorf("%d heads over %d key heads of width %d", s.Heads, s.KVHeads, s.HeadDim)
	case n == 0:
		return errors.New("no sequences")
	case y.Len() != n*hq || q.Len() != n*hq || k.Len() != n*hk || v.Len() != n*hk:
		return fmt.Errorf("y, q, k and v have %d, %d, %d and %d elements for %d sequences of %d heads over %d of width %d", y.Len(), q.Len(), k.Len(), v.Len(), n, s.Heads, s.KVHeads, s.HeadDim)
	}
	for i, c := range caches {
		if c.Keys == nil || c.Values == nil || c.Length < 1 || c.Length*hk > c.Keys.Len() || c.Keys.Len() != c.Values.Len() {
			return fmt.Errorf("the cache of sequence %d holds no %d rows of %d", i, c.Length, hk)
		}
	}
	return nil
}
