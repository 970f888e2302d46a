package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// normalizer rewrites text before it is split. atStart is false for the later chunks of
// a long text, which must not be given a prefix again.
type normalizer interface {
	apply(s string, atStart bool) string
	// byChunk reports whether a text cut before a space between ASCII letters is
	// normalized the same as in one piece.
	byChunk() bool
}

type (
	normSequence  []normalizer
	normLowercase struct{}
	normPrepend   string
	normReplace   struct {
		old string
		re  *regex
		new string
	}
	normStrip        struct{ left, right bool }
	normStripAccents struct{}
)

func (n normSequence) apply(s string, atStart bool) string {
	for _, sub := range n {
		s = sub.apply(s, atStart)
	}
	return s
}

func (n normSequence) byChunk() bool {
	for _, sub := range n {
		if !sub.byChunk() {
			return false
		}
	}
	return true
}

// apply lowers each character by itself, with no rule for final sigma.
func (normLowercase) apply(s string, _ bool) string {
	if strings.ContainsRune(s, 'İ') {
		s = strings.ReplaceAll(s, "İ", "i\u0307")
	}
	return strings.Map(func(r rune) rune {
		if r >= 0x1C89 {
			for _, n := range newerLower {
				if n.first <= r && r <= n.last {
					return r + n.lower
				}
			}
		}
		return unicode.ToLower(r)
	}, s)
}
func (normLowercase) byChunk() bool { return true }

func (n normPrepend) apply(s string, atStart bool) string {
	if !atStart || s == "" {
		return s
	}
	return string(n) + s
}
func (normPrepend) byChunk() bool { return true }

func (n normReplace) apply(s string, _ bool) string {
	if n.re == nil {
		return strings.ReplaceAll(s, n.old, n.new)
	}
	start, end, ok := n.re.find(s, 0)
	if !ok {
		return s
	}
	var out strings.Builder
	for at := 0; ; {
		out.WriteString(s[at:start])
		out.WriteString(n.new)
		at = end
		if start, end, ok = n.re.find(s, at); !ok {
			out.WriteString(s[at:])
			return out.String()
		}
	}
}

// movesStart reports whether n may make the first character of a text another's place.
func movesStart(n normalizer) bool {
	switch n := n.(type) {
	case normSequence:
		return slices.ContainsFunc(n, movesStart)
	case normStrip:
		return n.left
	case normStripAccents:
		return true
	case normReplace:
		return n.re != nil || utf8.RuneCountInString(n.old) != utf8.RuneCountInString(n.new)
	}
	return false
}

func (n normReplace) byChunk() bool { return n.re == nil && utf8.RuneCountInString(n.old) == 1 }

func (n normStrip) apply(s string, _ bool) string {
	if n.left {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
	}
	if n.right {
		s = strings.TrimRightFunc(s, unicode.IsSpace)
	}
	return s
}
func (normStrip) byChunk() bool { return false }

func (normStripAccents) apply(s string, _ bool) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.M, r) && !unicode.Is(opaque, r) {
			return -1
		}
		return r
	}, s)
}
func (normStripAccents) byChunk() bool { return true }
