package tokenizer

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

// spNormalizer is SentencePiece's normalizer: the longest rule of charsmap that fits, at
// each place; spaces as ▁; and, if so configured, white space squeezed and a space put before.
type spNormalizer struct {
	charsmap    *charsmap // nil: identity
	userDefined *matcher  // symbols that no rule touches; may be nil
	dummyPrefix bool
	removeExtra bool
}

func (n *spNormalizer) byChunk() bool { return true }

func (n *spNormalizer) apply(s string, atStart bool) string {
	var out strings.Builder
	out.Grow(len(s) + len(s)/4 + len(metaspace))
	if atStart && n.removeExtra {
		for s != "" {
			text, w := n.prefix(s)
			if text != " " {
				break
			}
			s = s[w:]
		}
	}
	if s == "" {
		return ""
	}
	if atStart && n.dummyPrefix {
		out.WriteString(metaspace)
	}
	// spaces are held back until something follows, so that those at the end are removed.
	held := 0
	afterSpace := atStart && n.removeExtra
	for s != "" {
		text, w := n.prefix(s)
		s = s[w:]
		for afterSpace && strings.HasPrefix(text, " ") {
			text = text[1:]
		}
		for i := range len(text) {
			if text[i] == ' ' {
				held++
				continue
			}
			for ; held > 0; held-- {
				out.WriteString(metaspace)
			}
			out.WriteByte(text[i])
		}
		if text != "" {
			afterSpace = n.removeExtra && strings.HasSuffix(text, " ")
		}
	}
	if n.removeExtra {
		return strings.TrimRight(out.String(), metaspace)
	}
	for ; held > 0; held-- {
		out.WriteString(metaspace)
	}
	return out.String()
}

// prefix normalizes the beginning of s, w bytes of it.
func (n *spNormalizer) prefix(s string) (text string, w int) {
	if n.userDefined != nil && n.userDefined.first[s[0]] {
		if end, a := n.userDefined.longest(s, 0); a != nil {
			return s[:end], end
		}
	}
	if n.charsmap != nil {
		if text, w, ok := n.charsmap.longest(s); ok {
			return text, w
		}
	}
	_, w = utf8.DecodeRuneInString(s)
	return s[:w], w
}

// charsmap is a compiled set of rewriting rules: a double-array trie (Darts-clone) whose
// values are offsets into NUL-terminated replacements.
type charsmap struct {
	units        []uint32
	replacements string
}

// parseCharsmap reads SentencePiece's precompiled_charsmap; none means identity.
func parseCharsmap(blob []byte) (*charsmap, error) {
	if len(blob) == 0 {
		return nil, nil
	}
	if len(blob) < 4 {
		return nil, errors.New("too short")
	}
	size := binary.LittleEndian.Uint32(blob)
	blob = blob[4:]
	if uint64(size) > uint64(len(blob)) || size%4 != 0 || size == 0 {
		return nil, errors.New("the size of its trie is wrong")
	}
	c := &charsmap{replacements: string(blob[size:])}
	for i := uint32(0); i < size; i += 4 {
		c.units = append(c.units, binary.LittleEndian.Uint32(blob[i:]))
	}
	return c, nil
}

// longest returns the replacement of the longest rule that s begins with.
func (c *charsmap) longest(s string) (text string, w int, ok bool) {
	offset := func(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }
	pos, value := offset(c.units[0]), uint32(0)
	for i := range len(s) {
		pos ^= uint32(s[i])
		if uint64(pos) >= uint64(len(c.units)) {
			break
		}
		unit := c.units[pos]
		if unit&(1<<31|0xFF) != uint32(s[i]) {
			break
		}
		pos ^= offset(unit)
		if unit>>8&1 == 1 && uint64(pos) < uint64(len(c.units)) {
			value, w, ok = c.units[pos]&(1<<31-1), i+1, true
		}
	}
	if !ok || uint64(value) > uint64(len(c.replacements)) {
		return "", 0, false
	}
	text, _, _ = strings.Cut(c.replacements[value:], "\x00")
	return text, w, true
}
