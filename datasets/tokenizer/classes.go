package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// runeClass is a set of character properties the pre-tokenizer patterns ask about.
type runeClass uint8

const (
	classLetter  runeClass = 1 << iota // \p{L}
	classNumber                        // \p{N}
	classSpace                         // \s: White_Space
	classNewline                       // \r or \n
	classUpper                         // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
	classLower                         // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
)

// classTable covers the planes that hold nearly all text; the rest is looked up in
// the Unicode range tables.
const classTableSize = 0x20000

var classTable = buildClassTable()

func buildClassTable() *[classTableSize]runeClass {
	var t [classTableSize]runeClass
	mark := func(tab *unicode.RangeTable, c runeClass) {
		for _, r := range tab.R16 {
			for x := uint32(r.Lo); x <= uint32(r.Hi); x += uint32(r.Stride) {
				t[x] |= c
			}
		}
		for _, r := range tab.R32 {
			for x := r.Lo; x <= r.Hi && x < classTableSize; x += r.Stride {
				t[x] |= c
			}
		}
	}
	for c, tabs := range classTables {
		for _, tab := range tabs {
			mark(tab, c)
		}
	}
	t['\r'] |= classNewline
	t['\n'] |= classNewline
	return &t
}

var classTables = map[runeClass]runeTables{
	classLetter: properties("L"),
	classNumber: properties("N"),
	classSpace:  {unicode.White_Space},
	classUpper:  properties("Lu", "Lt", "Lm", "Lo", "M"),
	classLower:  properties("Ll", "Lm", "Lo", "M"),
}

func classOf(r rune) runeClass {
	if uint32(r) < classTableSize {
		return classTable[r]
	}
	var c runeClass
	for class, tabs := range classTables {
		if unicode.In(r, tabs...) {
			c |= class
		}
	}
	return c
}

// classAt returns the class and width of the character of s at i; width 0 at the end.
func classAt(s string, i int) (runeClass, int) {
	if i >= len(s) {
		return 0, 0
	}
	if b := s[i]; b < utf8.RuneSelf {
		return classTable[b], 1
	}
	r, w := utf8.DecodeRuneInString(s[i:])
	return classOf(r), w
}

// runOf returns the end of the run of characters from i whose class meets mask.
func runOf(s string, i int, mask runeClass) int {
	for i < len(s) {
		if b := s[i]; b < utf8.RuneSelf {
			if classTable[b]&mask == 0 {
				return i
			}
			i++
			continue
		}
		r, w := utf8.DecodeRuneInString(s[i:])
		if classOf(r)&mask == 0 {
			return i
		}
		i += w
	}
	return i
}

// runOutside returns the end of the run of characters from i whose class does not meet mask.
func runOutside(s string, i int, mask runeClass) int {
	for i < len(s) {
		c, w := classAt(s, i)
		if c&mask != 0 {
			return i
		}
		i += w
	}
	return i
}
