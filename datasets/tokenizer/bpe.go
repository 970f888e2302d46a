package tokenizer

import "math"

// bpe holds the merge rules of a byte-pair encoding and applies them: of all adjacent
// pairs the one with the lowest rank is merged first, the leftmost of equals, until no
// rule applies.
type bpe struct {
	rules []rule // open addressing
	mask  uint64
	// maybe is a Bloom filter of the rules: most pairs asked for have none, and the
	// filter fits a cache that the rules do not.
	maybe []uint64
	bits  uint64
}

// rule merges left and right into id; rank is noRank in a free slot.
type rule struct{ left, right, rank, id int32 }

const noRank = math.MaxInt32

func newBPE(merges int) *bpe {
	size := 64
	for size < 2*merges {
		size *= 2
	}
	b := &bpe{rules: make([]rule, size), mask: uint64(size - 1), maybe: make([]uint64, size/8), bits: uint64(8*size - 1)}
	for i := range b.rules {
		b.rules[i].rank = noRank
	}
	return b
}

func pairHash(left, right int32) uint64 {
	h := (uint64(uint32(left))<<32 | uint64(uint32(right))) * 0x9E3779B97F4A7C15
	return h ^ h>>29
}

// add makes the pair merge into id; a pair listed again takes the later rank, as a map
// filled in order would.
func (b *bpe) add(left, right, id int32, rank int) {
	h := pairHash(left, right)
	b.maybe[h&b.bits/64] |= 1 << (h & 63)
	i := h >> 20 & b.mask
	for b.rules[i].rank != noRank && (b.rules[i].left != left || b.rules[i].right != right) {
		i = (i + 1) & b.mask
	}
	b.rules[i] = rule{left, right, int32(rank), id}
}

// lookup returns the rank of a pair and its merged token, or noRank.
func (b *bpe) lookup(left, right int32) (rank, id int32) {
	h := pairHash(left, right)
	if b.maybe[h&b.bits/64]>>(h&63)&1 == 0 {
		return noRank, 0
	}
	for i := h >> 20 & b.mask; ; i = (i + 1) & b.mask {
		r := &b.rules[i]
		if r.left == left && r.right == right || r.rank == noRank {
			return r.rank, r.id
		}
	}
}

// symbol is a token in the making: len bytes of the word.
type symbol struct {
	id  int32
	len int32
}

// merger is the working memory of one goroutine's merging.
type merger struct {
	*bpe
	rank  []int32 // rank[i], into[i]: merging symbols i and i+1
	into  []int32
	links []link
	heap  []candidate
}

// shortWord is the number of symbols up to which scanning for the lowest rank beats
// the heap.
const shortWord = 96

// merge reduces syms to tokens in place and returns them.
func (m *merger) merge(syms []symbol) []symbol {
	switch n := len(syms); {
	case n < 2:
		return syms
	case n <= shortWord:
		return m.mergeShort(syms)
	}
	return m.mergeLong(syms)
}

func (m *merger) mergeShort(syms []symbol) []symbol {
	n := len(syms)
	if cap(m.rank) < shortWord {
		m.rank, m.into = make([]int32, shortWord), make([]int32, shortWord)
	}
	rank, into := m.rank[:n], m.into[:n]
	for i := 0; i+1 < n; i++ {
		rank[i], into[i] = m.lookup(syms[i].id, syms[i+1].id)
	}
	rank[n-1] = noRank
	for {
		best, at := int32(noRank), -1
		for i, r := range rank[:n] {
			if r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			return syms[:n]
		}
		syms[at] = symbol{into[at], syms[at].len + syms[at+1].len}
		copy(syms[at+1:n-1], syms[at+2:n])
		copy(rank[at+1:n-1], rank[at+2:n])
		copy(into[at+1:n-1], into[at+2:n])
		n--
		rank[at] = noRank
		if at+1 < n {
			rank[at], into[at] = m.lookup(syms[at].id, syms[at+1].id)
		}
		if at > 0 {
			rank[at-1], into[at-1] = m.lookup(syms[at-1].id, syms[at].id)
		}
	}
}

type link struct{ prev, next int32 }

// candidate is a possible merge of the symbol at with its next one.
type candidate struct{ rank, at, into int32 }

func (a candidate) less(b candidate) bool {
	return a.rank < b.rank || (a.rank == b.rank && a.at < b.at)
}

func (m *merger) mergeLong(syms []symbol) []symbol {
	n := len(syms)
	if cap(m.links) < n {
		m.links = make([]link, n)
	}
	links := m.links[:n]
	m.heap = m.heap[:0]
	for i := range syms {
		links[i] = link{int32(i) - 1, int32(i) + 1}
		if i+1 < n {
			if r, id := m.lookup(syms[i].id, syms[i+1].id); r != noRank {
				m.heap = append(m.heap, candidate{r, int32(i), id})
			}
		}
	}
	links[n-1].next = -1
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	for len(m.heap) > 0 {
		c := m.pop()
		next := links[c.at].next
		if syms[c.at].len == 0 || next < 0 {
			continue // stale: the symbol was merged away
		}
		if r, id := m.lookup(syms[c.at].id, syms[next].id); r != c.rank || id != c.into {
			continue // stale: a neighbour changed
		}
		syms[c.at] = symbol{c.into, syms[c.at].len + syms[next].len}
		syms[next].len = 0
		after := links[next].next
		links[c.at].next = after
		if after >= 0 {
			links[after].prev = c.at
			if r, id := m.lookup(c.into, syms[after].id); r != noRank {
				m.push(candidate{r, c.at, id})
			}
		}
		if prev := links[c.at].prev; prev >= 0 {
			if r, id := m.lookup(syms[prev].id, c.into); r != noRank {
				m.push(candidate{r, prev, id})
			}
		}
	}
	out := syms[:0]
	for i := int32(0); i >= 0; i = links[i].next {
		out = append(out, syms[i])
	}
	return out
}

func (m *merger) push(c candidate) {
	m.heap = append(m.heap, c)
	for i := len(m.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !m.heap[i].less(m.heap[parent]) {
			return
		}
		m.heap[i], m.heap[parent] = m.heap[parent], m.heap[i]
		i = parent
	}
}

func (m *merger) pop() candidate {
	top, last := m.heap[0], len(m.heap)-1
	m.heap[0] = m.heap[last]
	m.heap = m.heap[:last]
	m.down(0)
	return top
}

func (m *merger) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(m.heap) {
			return
		}
		if child+1 < len(m.heap) && m.heap[child+1].less(m.heap[child]) {
			child++
		}
		if !m.heap[child].less(m.heap[i]) {
			return
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
}
