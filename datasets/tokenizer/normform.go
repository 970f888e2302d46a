package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normForm is a Unicode normal form as the reference tokenizers compute it. That of
// golang.org/x/text differs in two ways: it knows newer characters, and after thirty
// combining marks it inserts U+034F, which makes another text.
type normForm struct{ norm.Form }

func (normForm) byChunk() bool { return true }

func (n normForm) apply(s string, _ bool) string {
	if n.IsNormalString(s) { // then it is by the older tables too
		return s
	}
	var out strings.Builder
	out.Grow(len(s))
	for begin := 0; begin < len(s); {
		end, w := nextOpaque(s, begin)
		out.WriteString(n.known(s[begin:end]))
		out.WriteString(s[end : end+w])
		begin = end + w
	}
	return out.String()
}

// nextOpaque returns the place and width of the first character of s from i on that
// the reference does not know; with width 0 the end.
func nextOpaque(s string, i int) (at, width int) {
	for i < len(s) {
		r, w := utf8.DecodeRuneInString(s[i:])
		if r >= firstOpaque && unicode.Is(opaque, r) {
			return i, w
		}
		i += w
	}
	return i, 0
}

const (
	firstOpaque = 0x7FD
	joiner      = "\u034F" // COMBINING GRAPHEME JOINER
)

// opaque covers the marks and the characters with decompositions or combining classes that Unicode
// assigned after version 9, whose tables the reference normalizes by: it leaves them alone,
// like unassigned ones. The ranges hold no such character that version 9 knows.
var opaque = ranges(0x7FD, 0x7FD, 0x898, 0x8D3, 0x9FE, 0x9FE, 0xAFA, 0xAFF, 0xB55, 0xB55, 0xC04, 0xC3C,
	0xCF3, 0xD00, 0xD3B, 0xD3C, 0xD81, 0xD81, 0xEBA, 0xEBA, 0xECE, 0xECE, 0x1715, 0x1715, 0x180F, 0x180F,
	0x1ABF, 0x1ACE, 0x1CF2, 0x1CF3, 0x1CF7, 0x1CF7, 0x1DF6, 0x1DFA, 0x32FF, 0x32FF, 0xA7F2, 0xA7F4,
	0xA82C, 0xA82C, 0xA8FF, 0xA8FF, 0xAB69, 0xAB69, 0x10781, 0x107BA, 0x10D24, 0x10F85, 0x11070, 0x11074,
	0x110C2, 0x110C2, 0x11145, 0x11146, 0x111C9, 0x111C9, 0x111CE, 0x111CF, 0x11241, 0x11241,
	0x1133B, 0x1133B, 0x1145E, 0x1145E, 0x1182C, 0x11A99, 0x11D31, 0x13455, 0x16F4F, 0x16F4F,
	0x16F7F, 0x16F87, 0x16FE4, 0x16FF1, 0x1CF00, 0x1CF46, 0x1E030, 0x1E4EF, 0x1F16C, 0x1F16C,
	0x1FBF0, 0x1FBF9)

// known normalizes a text without opaque characters.
func (n normForm) known(s string) string {
	out := n.String(s)
	if strings.Count(out, joiner) == strings.Count(s, joiner) {
		return out
	}
	return n.manyMarks(s)
}

// manyMarks normalizes by the standard's definition: decompose, order the marks by
// combining class, compose. It is slow, and asked only for texts that pile up marks.
func (n normForm) manyMarks(s string) string {
	decompose, compose := norm.NFD, n.Form == norm.NFC || n.Form == norm.NFKC
	if n.Form == norm.NFKC || n.Form == norm.NFKD {
		decompose = norm.NFKD
	}
	var runes []rune
	for _, r := range s {
		runes = append(runes, []rune(decompose.String(string(r)))...)
	}
	for i := 0; i < len(runes); i++ {
		end := i
		for end < len(runes) && combiningClass(runes[end]) > 0 {
			end++
		}
		slices.SortStableFunc(runes[i:end], func(a, b rune) int { return int(combiningClass(a)) - int(combiningClass(b)) })
		i = end
	}
	if !compose {
		return string(runes)
	}
	out := runes[:0]
	starter, class := -1, uint8(0) // class: of the last character kept after the starter
	for _, r := range runes {
		c := combiningClass(r)
		if starter >= 0 && (starter == len(out)-1 || class < c) {
			pair := []rune(norm.NFC.String(string([]rune{out[starter], r})))
			if len(pair) == 1 {
				out[starter] = pair[0]
				continue
			}
		}
		if c == 0 {
			starter = len(out)
		}
		class = c
		out = append(out, r)
	}
	return string(out)
}

func combiningClass(r rune) uint8 {
	if r < 0x300 {
		return 0
	}
	return norm.NFD.PropertiesString(string(r)).CCC()
}
