// Package pytext reproduces the text functions of Python's str and re that
// published benchmark scores depend on, where Go's own differ: which characters
// are space, how text is lower-cased, what a word character is.
//
// Strings are UTF-8; one rune stands for one Python character.
package pytext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Punctuation is Python's string.punctuation.
const Punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// IsSpace reports whether Python's str.isspace, str.split and the pattern \s
// take r as white space. Unlike unicode.IsSpace that includes the information
// separators U+001C to U+001F.
func IsSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f
}

// IsWord reports whether the pattern \w matches r: letters, numbers of any kind and
// the underscore, but no combining marks.
func IsWord(r rune) bool {
	if r < utf8.RuneSelf {
		return r == '_' || '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z'
	}
	return unicode.IsLetter(r) || unicode.IsNumber(r)
}

// IsDigit reports whether the pattern \d matches r: the decimal digits of every script.
func IsDigit(r rune) bool { return unicode.IsDigit(r) }

// Fields splits s as str.split() does.
func Fields(s string) []string { return strings.FieldsFunc(s, IsSpace) }

// Lower is str.lower: full case mapping, so that İ becomes two characters and a
// capital sigma that ends a word becomes ς.
func Lower(s string) string {
	if !strings.ContainsAny(s, "İΣ") {
		return strings.ToLower(s)
	}
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && endsWord(s[:i], s[i+len("Σ"):]):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// endsWord is Unicode's condition Final_Sigma as Python reads it: past what is case-ignorable, a cased character comes before and none
// after. A character may be both (ʰ); then it is passed over. (golang.org/x/text/cases stops at such ones.)
func endsWord(before, after string) bool {
	last, _ := utf8.DecodeLastRuneInString(strings.TrimRightFunc(before, caseIgnorable))
	next, _ := utf8.DecodeRuneInString(strings.TrimLeftFunc(after, caseIgnorable))
	return cased(last) && !cased(next)
}

func cased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

// caseIgnorable is Unicode's Case_Ignorable: marks, formats, modifiers, and the punctuation that may stand within a word.
func caseIgnorable(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || strings.ContainsRune(withinWords, r)
}

// withinWords has the word-break classes MidLetter, MidNumLet and Single_Quote.
const withinWords = ":\u00b7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a" + ".\u2018\u2019\u2024\ufe52\uff07\uff0e" + "'"

// Digits returns the non-overlapping matches of \d+ in s, as re.findall does.
func Digits(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return !IsDigit(r) })
}

// FirstLine is s.lstrip('\n').split('\n')[0].
func FirstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(s, "\n"), "\n")
	return line
}
