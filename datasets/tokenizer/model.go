package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// model turns pieces into IDs: the vocabulary around the merge rules.
type model struct {
	bpe *bpe
	// byteLevel: words are raw bytes, each with a token (byteID). Otherwise the symbols
	// are characters (charID), and with fallback those without a token become
	// their bytes' tokens <0x00>…<0xFF> (byteID).
	byteLevel bool
	fallback  bool
	byteID    [256]int32 // -1: no token
	ascii     [utf8.RuneSelf]int32
	charID    map[rune]int32

	unk     int32 // -1: characters without a token vanish
	fuseUnk bool  // a run of them is one unknown token

	// whole holds the tokens that a whole piece is looked up in before merging
	// (ignore_merges), in the alphabet of the pieces; nil if merges are not ignored.
	whole map[string]int32

	// A piece may be cut before cutRune, unless the character before is in glued, since no
	// merge reaches over such a place. "": never, as with whole.
	cutRune string
	glued   map[rune]bool

	// internal symbols of SentencePiece (characters that occur in pieces without being
	// one) have IDs from here on and come out as unknown. 0: there are none.
	internal int32
	hidden   []string
}

// window is the number of bytes of a piece that are merged at once.
const window = 1 << 13

// piece encodes one pre-token, cutting it where merges cannot reach.
func (e *encoder) piece(s string) {
	m := &e.t.model
	if m.cutRune == "" {
		e.word(s)
		return
	}
	start := 0
	for i := 0; i < len(s); {
		j := strings.Index(s[i:], m.cutRune)
		if j < 0 {
			break
		}
		i += j
		if i > start {
			if r, _ := utf8.DecodeLastRuneInString(s[:i]); !m.glued[r] {
				e.word(s[start:i])
				start = i
			}
		}
		i += len(m.cutRune)
	}
	e.word(s[start:])
}

// word encodes a part of a piece that merges may reach over.
func (e *encoder) word(s string) {
	if len(s) > cacheKey {
		e.merge(s)
		return
	}
	slot, hit := e.cache.slot(s)
	if hit {
		e.out = append(e.out, slot.ids[:slot.n]...)
		return
	}
	from := len(e.out)
	e.merge(s)
	slot.put(s, e.out[from:])
}

func (e *encoder) merge(s string) {
	m := &e.t.model
	if id, ok := m.whole[s]; ok {
		e.out = append(e.out, id)
		return
	}
	if len(s) <= window {
		e.push(e.merger.merge(e.symbols(s)))
		return
	}
	if m.unk < 0 {
		s = m.known(s) // so that the symbols cover the text
	}
	e.mergeWindows(s, window)
}

func (e *encoder) push(syms []symbol) {
	m := &e.t.model
	if m.internal == 0 {
		for _, y := range syms {
			e.out = append(e.out, y.id)
		}
		return
	}
	// SentencePiece: characters that are no piece of their own come out as unknown, runs
	// of unknowns as one.
	for _, y := range syms {
		unknown := y.id == m.unk || y.id >= m.internal
		switch {
		case unknown && y.id >= m.internal && m.fallback && m.hasBytes(m.hidden[y.id-m.internal]):
			for _, b := range []byte(m.hidden[y.id-m.internal]) {
				e.out = append(e.out, m.byteID[b])
			}
		case !unknown:
			e.out = append(e.out, y.id)
		case len(e.out) == 0 || e.out[len(e.out)-1] != m.unk:
			e.out = append(e.out, m.unk)
		}
	}
}

// mergeWindows encodes a long word window by window, exactly: a sequence of tokens is
// the encoding of its text if and only if each two neighbours are the encoding of theirs
// (a merge over a token's border would show between those two alone). So where one
// window and the next, which overlap, have two neighbouring tokens in common, the tokens
// of the first up to there and those of the second from there on join to the encoding.
func (e *encoder) mergeWindows(s string, size int) {
	if size >= len(s) {
		e.push(e.merger.merge(e.symbols(s)))
		return
	}
	cutAt := func(i int) int { // not inside a character
		for i < len(s) && !e.t.model.byteLevel && !utf8.RuneStart(s[i]) {
			i++
		}
		return min(i, len(s))
	}
	emitted := len(e.out)
	end := cutAt(size)
	// first holds the tokens before end that are not emitted yet.
	first := append([]symbol(nil), e.merger.merge(e.symbols(s[:end]))...)
	for end < len(s) {
		// The next window begins at a token's border, a quarter back.
		from, border := len(first), end
		for from > 0 && border > end-size/4 {
			from--
			border -= int(first[from].len)
		}
		nextEnd := cutAt(border + size)
		second := e.merger.merge(e.symbols(s[border:nextEnd]))
		i, j, ok := commonPair(first[from:], second)
		if !ok { // no agreement: begin anew with windows twice as long
			e.out = e.out[:emitted]
			e.mergeWindows(s, 2*size)
			return
		}
		e.push(first[:from+i+1])
		first = append(first[:0], second[j+1:]...)
		end = nextEnd
	}
	e.push(first)
}

// commonPair finds indices i of a and j of b, which begin at the same place, such that
// a[i], a[i+1] and b[j], b[j+1] are the same tokens at the same place.
func commonPair(a, b []symbol) (i, j int, ok bool) {
	pa, pb := int32(0), int32(0)
	for i+1 < len(a) && j+1 < len(b) {
		switch {
		case pa < pb:
			pa += a[i].len
			i++
		case pb < pa:
			pb += b[j].len
			j++
		case a[i] == b[j] && a[i+1] == b[j+1]:
			return i, j, true
		default:
			pa += a[i].len
			i++
			pb += b[j].len
			j++
		}
	}
	return 0, 0, false
}

// symbols returns the symbols of s before merging; the next call reuses the memory.
func (e *encoder) symbols(s string) []symbol {
	m := &e.t.model
	syms := e.syms[:0]
	if m.byteLevel {
		for i := 0; i < len(s); i++ {
			if id := m.byteID[s[i]]; id >= 0 {
				syms = append(syms, symbol{id, 1})
			} else {
				syms = m.unknown(syms, 1)
			}
		}
		e.syms = syms
		return syms
	}
	for i := 0; i < len(s); {
		id, w := int32(-1), 1
		if b := s[i]; b < utf8.RuneSelf {
			id = m.ascii[b]
		} else {
			var r rune
			r, w = utf8.DecodeRuneInString(s[i:])
			if known, ok := m.charID[r]; ok {
				id = known
			}
		}
		switch {
		case id >= 0:
			syms = append(syms, symbol{id, int32(w)})
		case m.fallback && m.hasBytes(s[i:i+w]):
			for k := range w {
				syms = append(syms, symbol{m.byteID[s[i+k]], 1})
			}
		default:
			syms = m.unknown(syms, int32(w))
		}
		i += w
	}
	e.syms = syms
	return syms
}

func (m *model) hasBytes(s string) bool {
	for i := range len(s) {
		if m.byteID[s[i]] < 0 {
			return false
		}
	}
	return true
}

// known returns s without the characters (or bytes) that vanish.
func (m *model) known(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		w := 1
		ok := false
		if m.byteLevel {
			ok = m.byteID[s[i]] >= 0
		} else {
			var r rune
			r, w = utf8.DecodeRuneInString(s[i:])
			_, ok = m.charID[r]
			ok = ok || m.fallback && m.hasBytes(s[i:i+w])
		}
		if ok {
			out.WriteString(s[i : i+w])
		}
		i += w
	}
	return out.String()
}

func (m *model) unknown(syms []symbol, width int32) []symbol {
	switch n := len(syms); {
	case m.unk < 0:
		return syms
	case m.fuseUnk && n > 0 && syms[n-1].id == m.unk:
		syms[n-1].len += width
		return syms
	}
	return append(syms, symbol{m.unk, width})
}
