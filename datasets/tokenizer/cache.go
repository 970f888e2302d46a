package tokenizer

import "hash/maphash"

// wordCache remembers the tokens of recent short words. It has a fixed size: a word
// takes the place of the one that hashed alike.
type wordCache struct {
	seed  maphash.Seed
	slots []cacheSlot
}

const (
	cacheSlots = 1 << 15
	cacheKey   = 30
	cacheIDs   = 8
)

// cacheSlot is one cache line of 64 bytes.
type cacheSlot struct {
	n, len uint8
	key    [cacheKey]byte
	ids    [cacheIDs]int32
}

func newWordCache() *wordCache {
	return &wordCache{seed: maphash.MakeSeed(), slots: make([]cacheSlot, cacheSlots)}
}

// slot returns the place of word, which is at most cacheKey bytes long, and whether it
// holds word now.
func (c *wordCache) slot(word string) (s *cacheSlot, hit bool) {
	s = &c.slots[maphash.String(c.seed, word)%cacheSlots]
	return s, int(s.len) == len(word) && string(s.key[:s.len]) == word
}

func (s *cacheSlot) put(word string, ids []int32) {
	if len(ids) > cacheIDs {
		return
	}
	s.len, s.n = uint8(len(word)), uint8(len(ids))
	copy(s.key[:], word)
	copy(s.ids[:], ids)
}
