package jieba

import "math/bits"

// trie holds the dictionary by prefix: children are found in one open-addressing
// table keyed by (node, character), which takes a third of the time to build and the
// memory of a map of prefixes. Node 0 is the root.
type trie struct {
	keys  []uint64 // node<<21 | rune, plus 1; 0 marks a free slot
	child []uint32
	shift int

	isWord []bool
	// weight is log(frequency) − log(total), by node.
	weight   []float64
	logTotal float64
}

func (t *trie) init(words int) {
	// About 1.5 nodes a word; the table stays at most half full.
	size := 1 << bits.Len(uint(max(words, 16)*3))
	t.keys = make([]uint64, size)
	t.child = make([]uint32, size)
	t.shift = 64 - bits.Len(uint(size-1))
	t.isWord = make([]bool, 1, words*3/2+1)
	t.weight = make([]float64, 1, words*3/2+1)
}

func key(node uint32, r rune) uint64 { return uint64(node)<<21 | uint64(r) + 1 }

// slot is where k is, or the free slot where it would be.
func (t *trie) slot(k uint64) int {
	// Fibonacci hashing: multiply by 2⁶⁴/φ and keep the top bits.
	i := int(k * 0x9e3779b97f4a7c15 >> t.shift)
	for t.keys[i] != k && t.keys[i] != 0 {
		i = (i + 1) & (len(t.keys) - 1)
	}
	return i
}

// next is the child of node by r; 0 when there is none.
func (t *trie) next(node uint32, r rune) uint32 { return t.child[t.slot(key(node, r))] }

func (t *trie) insert(node uint32, r rune) uint32 {
	k := key(node, r)
	i := t.slot(k)
	if t.keys[i] == k {
		return t.child[i]
	}
	if 2*len(t.isWord) >= len(t.keys) {
		t.grow()
		i = t.slot(k)
	}
	id := uint32(len(t.isWord))
	t.keys[i], t.child[i] = k, id
	t.isWord = append(t.isWord, false)
	t.weight = append(t.weight, 0)
	return id
}

func (t *trie) grow() {
	keys, child := t.keys, t.child
	t.keys = make([]uint64, 2*len(keys))
	t.child = make([]uint32, 2*len(keys))
	t.shift--
	for i, k := range keys {
		if k != 0 {
			j := t.slot(k)
			t.keys[j], t.child[j] = k, child[i]
		}
	}
}

// contains reports whether the characters form a word.
func (t *trie) contains(word []rune) bool {
	var node uint32
	for _, r := range word {
		if node = t.next(node, r); node == 0 {
			return false
		}
	}
	return t.isWord[node]
}
