package tokenizer

import (
	"slices"
	"sync/atomic"
	"unicode/utf8"
)

// regex is a backtracking matcher for the part of Oniguruma's syntax that
// pre-tokenizers are written in: characters, classes (ranges, \p{…}, \s \d \w, negation,
// nesting, &&), greedy and possessive repetition, alternation, groups, (?i:…) and
// look-ahead. It reads the text in place. Other constructs are refused.
type regex struct {
	match matchFunc
}

// matchFunc returns the end of the match of s at i, or -1.
type matchFunc func(s string, i int) int

// find returns the first match of s at or after i that is not empty.
func (re *regex) find(s string, i int) (start, end int, ok bool) {
	for i < len(s) {
		if e := re.match(s, i); e > i {
			return i, e, true
		}
		_, w := utf8.DecodeRuneInString(s[i:])
		i += w
	}
	return 0, 0, false
}

func compileRegex(pattern string) (*regex, error) {
	p := &regexParser{src: pattern}
	n, err := p.alternatives()
	if err == nil && p.pos < len(p.src) {
		err = p.errorf("unmatched %q", p.src[p.pos:p.pos+1])
	}
	if err == nil && matchesEmpty(n) {
		err = p.errorf("a pattern that matches the empty text is not supported")
	}
	if err != nil {
		return nil, err
	}
	return &regex{match: n.compile(func(_ string, i int) int { return i })}, nil
}

// matchesEmpty reports whether n may match no character at all. The reference cuts a text at
// each such match.
func matchesEmpty(n regexNode) bool {
	switch n := n.(type) {
	case regexSet:
		return false
	case regexSeq:
		for _, sub := range n {
			if !matchesEmpty(sub) {
				return false
			}
		}
	case regexAlt:
		return slices.ContainsFunc(n, matchesEmpty)
	case regexRepeat:
		return n.min == 0 || matchesEmpty(n.sub)
	}
	return true
}

// regexNode is one part of a pattern; compile joins it to what comes after it.
type regexNode interface {
	compile(next matchFunc) matchFunc
}

type (
	regexEmpty struct{}
	regexSet   struct{ set *runeSet }
	regexSeq   []regexNode
	regexAlt   []regexNode
	regexLook  struct {
		sub regexNode
		not bool
	}
	regexRepeat struct {
		sub        regexNode
		min, max   int // max < 0: no limit
		possessive bool
	}
	regexEnd struct{ start bool }
)

func (regexEmpty) compile(next matchFunc) matchFunc { return next }

func (n regexEnd) compile(next matchFunc) matchFunc {
	return func(s string, i int) int {
		if (n.start && i == 0) || (!n.start && i == len(s)) {
			return next(s, i)
		}
		return -1
	}
}

// setTable answers what a runeSet has from a bit map, whose pages are made as they are
// asked for.
type setTable struct {
	set   *runeSet
	ascii [utf8.RuneSelf]bool
	pages [setPages]atomic.Pointer[setPage]
}

// setPage has a bit for each of setPageSize characters. The pages cover the planes that hold
// nearly all text.
type setPage [setPageSize / 64]uint64

const (
	setPageSize = 256
	setPages    = 0x20000 / setPageSize
)

func newSetTable(set *runeSet) *setTable {
	t := &setTable{set: set}
	for r := range rune(utf8.RuneSelf) {
		t.ascii[r] = set.has(r)
	}
	return t
}

// width returns the width of the character of s at i if it is in the set, else 0.
func (t *setTable) width(s string, i int) int {
	if i >= len(s) {
		return 0
	}
	if b := s[i]; b < utf8.RuneSelf {
		if t.ascii[b] {
			return 1
		}
		return 0
	}
	r, w := utf8.DecodeRuneInString(s[i:])
	if !t.has(r) {
		return 0
	}
	return w
}

func (t *setTable) has(r rune) bool {
	at := int(r) / setPageSize
	if at >= setPages {
		return t.set.has(r)
	}
	page := t.pages[at].Load()
	if page == nil {
		page = new(setPage)
		for k := range setPageSize {
			if t.set.has(rune(at*setPageSize + k)) {
				page[k/64] |= 1 << (k % 64)
			}
		}
		t.pages[at].Store(page)
	}
	k := int(r) % setPageSize
	return page[k/64]>>(k%64)&1 != 0
}

func (n regexSet) compile(next matchFunc) matchFunc {
	set := newSetTable(n.set)
	return func(s string, i int) int {
		if w := set.width(s, i); w > 0 {
			return next(s, i+w)
		}
		return -1
	}
}

func (n regexSeq) compile(next matchFunc) matchFunc {
	for i := len(n) - 1; i >= 0; i-- {
		next = n[i].compile(next)
	}
	return next
}

func (n regexAlt) compile(next matchFunc) matchFunc {
	alts := make([]matchFunc, len(n))
	for i, a := range n {
		alts[i] = a.compile(next)
	}
	return func(s string, i int) int {
		for _, a := range alts {
			if e := a(s, i); e >= 0 {
				return e
			}
		}
		return -1
	}
}

func (n regexLook) compile(next matchFunc) matchFunc {
	sub := n.sub.compile(func(_ string, i int) int { return i })
	return func(s string, i int) int {
		if (sub(s, i) >= 0) == n.not {
			return -1
		}
		return next(s, i)
	}
}

func (n regexRepeat) compile(next matchFunc) matchFunc {
	if set, ok := n.sub.(regexSet); ok {
		return n.compileSet(newSetTable(set.set), next)
	}
	if n.possessive {
		once := n.sub.compile(func(_ string, i int) int { return i })
		return func(s string, i int) int {
			count := 0
			for n.max < 0 || count < n.max {
				e := once(s, i)
				if e < 0 || (e == i && count >= n.min) {
					break
				}
				i = e
				count++
			}
			if count < n.min {
				return -1
			}
			return next(s, i)
		}
	}
	// The parser admits groups only with a small max, so that unrolling is enough.
	m := next
	for k := n.max; k > 0; k-- {
		once, after := n.sub.compile(m), next
		if k <= n.min {
			m = once
			continue
		}
		m = func(s string, i int) int {
			if e := once(s, i); e >= 0 {
				return e
			}
			return after(s, i)
		}
	}
	return m
}

func (n regexRepeat) compileSet(set *setTable, next matchFunc) matchFunc {
	return func(s string, i int) int {
		end, count := i, 0
		for n.max < 0 || count < n.max {
			w := set.width(s, end)
			if w == 0 {
				break
			}
			end += w
			count++
		}
		if n.possessive {
			if count < n.min {
				return -1
			}
			return next(s, end)
		}
		for ; count >= n.min; count-- {
			if e := next(s, end); e >= 0 {
				return e
			}
			if count > 0 {
				_, w := utf8.DecodeLastRuneInString(s[:end])
				end -= w
			}
		}
		return -1
	}
}
