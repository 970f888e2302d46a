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

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
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
	if strings.ContainsAny(s, "İΣ") {
		return cases.Lower(language.Und).String(s)
	}
	return strings.ToLower(s)
}

// Digits returns the non-overlapping matches of \d+ in s, as re.findall does.
func Digits(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return !IsDigit(r) })
}

// FirstLine is s.lstrip('\n').split('\n')[0].
func FirstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(s, "\n"), "\n")
	return line
}
