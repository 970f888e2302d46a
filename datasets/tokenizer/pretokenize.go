package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// place says where a piece stands: at the start of a section (the text between two
// added tokens, or a piece of an earlier split), and at the start of the whole text.
type place struct{ section, text bool }

// preTokenizer splits a piece into smaller ones, calling next for each.
type preTokenizer interface {
	split(s string, at place, next func(string, place))
}

// behavior says what becomes of the delimiters that a split finds.
type behavior string

const (
	behaviorIsolated           behavior = "Isolated"
	behaviorRemoved            behavior = "Removed"
	behaviorMergedWithPrevious behavior = "MergedWithPrevious"
	behaviorMergedWithNext     behavior = "MergedWithNext"
	behaviorContiguous         behavior = "Contiguous"
)

// finder returns the first delimiter of s at or after i.
type finder func(s string, i int) (start, end int, ok bool)

type (
	preScan  struct{ scan scanner } // a known pattern, isolated: its pieces cover the text
	preSplit struct {
		find     finder
		behavior behavior
		invert   bool
	}
	// preByteLevel is the byte alphabet: the pieces stay as they are, the model reads bytes.
	preByteLevel struct{ addPrefixSpace, pattern bool }
	preMetaspace struct {
		replacement string
		scheme      string // always, first, never
		splits      bool
	}
)

func (p preScan) split(s string, at place, next func(string, place)) {
	for i := 0; i < len(s); {
		end := p.scan(s, i)
		next(s[i:end], at)
		i, at = end, place{section: true}
	}
}

func (p preByteLevel) split(s string, at place, next func(string, place)) {
	if p.addPrefixSpace && at.section && s[0] != ' ' {
		s = " " + s
	}
	if p.pattern {
		preScan{scanGPT2}.split(s, at, next)
		return
	}
	next(s, at)
}

func (p preMetaspace) split(s string, at place, next func(string, place)) {
	s = strings.ReplaceAll(s, " ", p.replacement)
	if (p.scheme == "always" && at.section || p.scheme == "first" && at.text) && !strings.HasPrefix(s, p.replacement) {
		s = p.replacement + s
	}
	if !p.splits {
		next(s, at)
		return
	}
	preSplit{find: findString(p.replacement), behavior: behaviorMergedWithNext}.split(s, at, next)
}

func (p preSplit) split(s string, at place, next func(string, place)) {
	emit := func(start, end int) {
		if start < end {
			next(s[start:end], place{section: at.section, text: at.text && start == 0})
			at.section = true
		}
	}
	// begin is where the piece that is not handed on yet begins; contiguous delimiters
	// and those merged with a neighbour are joined to it.
	begin, wasDelimiter := 0, false
	part := func(start, end int, delimiter bool) {
		if start == end {
			return
		}
		switch p.behavior {
		case behaviorRemoved:
			if !delimiter {
				emit(start, end)
			}
			begin = end
		case behaviorIsolated:
			emit(start, end)
			begin = end
		case behaviorContiguous:
			if start > 0 && delimiter != wasDelimiter {
				emit(begin, start)
				begin = start
			}
		case behaviorMergedWithPrevious:
			if delimiter && !wasDelimiter {
				emit(begin, end)
				begin = end
			} else {
				emit(begin, start)
				begin = start
			}
		case behaviorMergedWithNext:
			if delimiter || !wasDelimiter {
				emit(begin, start)
				begin = start
			}
		}
		wasDelimiter = delimiter
	}
	at0 := 0
	for i := 0; ; {
		start, end, ok := p.find(s, i)
		if !ok {
			break
		}
		part(at0, start, p.invert)
		part(start, end, !p.invert)
		i, at0 = end, end
	}
	part(at0, len(s), p.invert)
	if p.behavior != behaviorRemoved && p.behavior != behaviorIsolated {
		emit(begin, len(s))
	}
}

func findString(delimiter string) finder {
	return func(s string, i int) (int, int, bool) {
		j := strings.Index(s[i:], delimiter)
		return i + j, i + j + len(delimiter), j >= 0
	}
}

// findClass finds single characters of a class, or whole runs of them.
func findClass(mask runeClass, runs bool) finder {
	return func(s string, i int) (int, int, bool) {
		for i < len(s) {
			c, w := classAt(s, i)
			if c&mask != 0 {
				if runs {
					return i, runOf(s, i, mask), true
				}
				return i, i + w, true
			}
			i += w
		}
		return 0, 0, false
	}
}

// findWords finds runs of \w, or of characters that are neither that nor white space.
func findWords(s string, i int) (start, end int, ok bool) {
	kind := func(i int) (word, other bool, width int) {
		r, w := utf8.DecodeRuneInString(s[i:])
		word = isWord(r)
		return word, !word && classOf(r)&classSpace == 0, w
	}
	for i < len(s) {
		word, other, w := kind(i)
		if !word && !other {
			i += w
			continue
		}
		end := i + w
		for end < len(s) {
			nextWord, nextOther, w := kind(end)
			if nextWord != word || nextOther != other {
				break
			}
			end += w
		}
		return i, end, true
	}
	return 0, 0, false
}

// byteAlphabet maps bytes to the printable characters that byte-level vocabularies write
// them as: printable Latin-1 stands for itself, the rest follows from U+0100 on.
var byteAlphabet, alphabetByte = func() (chars [256]rune, bytes map[rune]byte) {
	bytes = make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if b <= ' ' || 0x7F <= b && b <= 0xA0 || b == 0xAD {
			r = next
			next++
		}
		chars[b], bytes[r] = r, byte(b)
	}
	return chars, bytes
}()

// alphabetBytes returns the bytes that s stands for in the byte alphabet.
func alphabetBytes(s string) ([]byte, bool) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		b, ok := alphabetByte[r]
		if !ok {
			return nil, false
		}
		out = append(out, b)
	}
	return out, utf8.ValidString(s)
}
