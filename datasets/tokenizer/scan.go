package tokenizer

import "unicode/utf8"

// scanner returns the end of the piece of s that starts at i < len(s). The pieces of
// a scanner cover the text, and each depends only on what follows its start.
type scanner func(s string, i int) int

// The pre-tokenizer patterns of the model families, as their files write them, and the
// hand-written scanners that stand for them. Each scanner is tested against the
// general matcher of regex.go running the pattern itself.
const (
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

	patternLlama3  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternCL100K  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	patternCL100K2 = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	patternO200K   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

var knownPatterns = map[string]scanner{
	patternGPT2:    scanGPT2,
	patternLlama3:  func(s string, i int) int { return scanLlama3(s, i, 3) },
	patternQwen2:   func(s string, i int) int { return scanLlama3(s, i, 1) },
	patternCL100K:  func(s string, i int) int { return scanLlama3(s, i, 3) },
	patternCL100K2: func(s string, i int) int { return scanLlama3(s, i, 3) },
	patternO200K:   scanO200K,
}

// contraction returns the end of 's 't 're 've 'm 'll 'd at i, where s[i] is an
// apostrophe, or i. fold ignores case, which for s includes ſ (U+017F).
func contraction(s string, i int, fold bool) int {
	if i+1 >= len(s) {
		return i
	}
	low := func(b byte) byte {
		if fold && 'A' <= b && b <= 'Z' {
			return b + 'a' - 'A'
		}
		return b
	}
	switch a := low(s[i+1]); a {
	case 's', 't', 'm', 'd':
		return i + 2
	case 'r', 'v', 'l':
		if i+2 < len(s) {
			if b := low(s[i+2]); (a != 'l' && b == 'e') || (a == 'l' && b == 'l') {
				return i + 3
			}
		}
	case 0xC5:
		if fold && i+2 < len(s) && s[i+2] == 0xBF {
			return i + 3
		}
	}
	return i
}

// spaceRun returns the end of the piece for a run of white space at i: up to the run's
// last newline if newlines; otherwise the run without its last character when
// something follows it, so that a word keeps its leading space.
func spaceRun(s string, i int, newlines bool) int {
	end, last, lastStart := i, -1, i
	for end < len(s) {
		c, w := classAt(s, end)
		if c&classSpace == 0 {
			break
		}
		lastStart = end
		end += w
		if c&classNewline != 0 {
			last = end
		}
	}
	switch {
	case newlines && last >= 0:
		return last
	case end < len(s) && lastStart > i:
		return lastStart
	}
	return end
}

func scanGPT2(s string, i int) int {
	if s[i] == '\'' {
		if e := contraction(s, i, false); e > i {
			return e
		}
	}
	c, w := classAt(s, i)
	start := i
	if s[i] == ' ' {
		if next, nw := classAt(s, i+1); nw > 0 && next&classSpace == 0 {
			c, w, start = next, nw, i+1
		}
	}
	switch {
	case c&classLetter != 0:
		return runOf(s, start+w, classLetter)
	case c&classNumber != 0:
		return runOf(s, start+w, classNumber)
	case c&classSpace == 0:
		return runOutside(s, start+w, classSpace|classLetter|classNumber)
	}
	return spaceRun(s, i, false)
}

// scanLlama3 stands for the Llama-3, Qwen2 and cl100k patterns, which differ in the
// number of digits a piece may have. (cl100k's `\s*[\r\n]` takes one newline where the
// others have `+`; both end at the last newline of the run, so they agree.)
func scanLlama3(s string, i, digits int) int {
	if s[i] == '\'' {
		if e := contraction(s, i, true); e > i {
			return e
		}
	}
	c, w := classAt(s, i)
	if c&classLetter != 0 {
		return runOf(s, i+w, classLetter)
	}
	if c&classNumber != 0 {
		return digitRun(s, i+w, digits-1)
	}
	next, nw := classAt(s, i+w)
	if c&classNewline == 0 && next&classLetter != 0 {
		return runOf(s, i+w+nw, classLetter)
	}
	const word = classSpace | classLetter | classNumber
	switch {
	case c&classSpace == 0:
		return runOf(s, runOutside(s, i+w, word), classNewline)
	case s[i] == ' ' && nw > 0 && next&word == 0:
		return runOf(s, runOutside(s, i+w+nw, word), classNewline)
	}
	return spaceRun(s, i, true)
}

// digitRun extends i over at most n more digits.
func digitRun(s string, i, n int) int {
	for ; n > 0; n-- {
		c, w := classAt(s, i)
		if c&classNumber == 0 {
			break
		}
		i += w
	}
	return i
}

func scanO200K(s string, i int) int {
	c, w := classAt(s, i)
	// A word may start with one character that is not a letter, number or newline; if
	// that one may itself be part of a word (a mark), both readings are tried in order.
	if c&(classNewline|classLetter|classNumber) == 0 {
		if e := caseWord(s, i+w, true); e > 0 {
			return e
		}
	}
	if c&(classUpper|classLower) != 0 {
		if e := caseWord(s, i, true); e > 0 {
			return e
		}
	}
	if c&(classNewline|classLetter|classNumber) == 0 {
		if e := caseWord(s, i+w, false); e > 0 {
			return e
		}
	}
	if c&classUpper != 0 {
		if e := caseWord(s, i, false); e > 0 {
			return e
		}
	}
	if c&classNumber != 0 {
		return digitRun(s, i+w, 2)
	}
	const word = classSpace | classLetter | classNumber
	next, nw := classAt(s, i+w)
	end := 0
	switch {
	case c&classSpace == 0:
		end = runOutside(s, i+w, word)
	case s[i] == ' ' && nw > 0 && next&word == 0:
		end = runOutside(s, i+w+nw, word)
	default:
		return spaceRun(s, i, true)
	}
	for end < len(s) && (s[end] == '\r' || s[end] == '\n' || s[end] == '/') {
		end++
	}
	return end
}

// caseWord matches upper* lower+ at i (endsLower), or upper+ lower*, then an optional
// contraction; 0 means no match.
func caseWord(s string, i int, endsLower bool) int {
	end := runOf(s, i, classUpper)
	if endsLower {
		low := runOf(s, end, classLower)
		if low == end {
			// Give back characters that count as both cases until one can be the lower
			// run; the run then takes everything up to the first one that cannot.
			for {
				if end == i {
					return 0
				}
				r, w := utf8.DecodeLastRuneInString(s[i:end])
				end -= w
				if classOf(r)&classLower != 0 {
					break
				}
			}
			low = runOf(s, end, classLower)
		}
		end = low
	} else {
		if end == i {
			return 0
		}
		end = runOf(s, end, classLower)
	}
	if end < len(s) && s[end] == '\'' {
		return contraction(s, end, true)
	}
	return end
}
