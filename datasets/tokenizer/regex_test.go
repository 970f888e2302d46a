package tokenizer

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// regexCases are patterns that both our matcher and regexp2 read the same way.
var regexCases = []string{
	`a|bc+|[^a-c\s]{2,3}`,
	`(?i:ab|k)c?`,
	`\p{Lu}[\p{Ll}\d]*(?=\s|!)`,
	`(?:ab?){1,3}c`,
	`\s+(?!\S)|\s+`,
	`[\p{L}--]+|\P{L}`,
	`x{2}y|[\-\]]`,
	`( ?[a-z]+){2}`,
}

func TestTheMatcherAgreesWithABacktrackingEngine(t *testing.T) {
	for _, pattern := range append(regexCases, patternGPT2, patternLlama3) {
		comparePattern(t, pattern, "ab abbc Kc \u212Ac Ab9! Xyz !  \n\n x yy xxy -]--]] cab abab abc it's 12 34567 don't")
	}
}

func comparePattern(t *testing.T, pattern, s string) {
	t.Helper()
	re, err := compileRegex(pattern)
	if err != nil {
		t.Fatal(err)
	}
	other := regexp2.MustCompile(pattern, regexp2.None)
	m, err := other.FindStringMatch(s)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for m != nil && m.Length == 0 {
		m, _ = other.FindNextMatch(m)
	}
	for m != nil {
		start, end, ok := re.find(s, at)
		if !ok || s[start:end] != m.String() || utf8.RuneCountInString(s[:start]) != m.Index {
			t.Fatalf("%q on %q: got %q at byte %d (%v), regexp2 %q at character %d", pattern, s, s[start:end], start, ok, m.String(), m.Index)
		}
		at = end
		if m, err = other.FindNextMatch(m); err != nil {
			t.Fatal(err)
		}
	}
	if start, end, ok := re.find(s, at); ok {
		t.Fatalf("%q on %q: a further match %q", pattern, s, s[start:end])
	}
}

func TestPatternsBeyondTheSupportedSyntaxAreRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		`(?<=a)b`:     "group",
		`a+?`:         "lazy",
		`(ab)+`:       "unbounded repetition of a group",
		`^a`:          "not supported",
		`\bword`:      `\b is not supported`,
		`(a)\1`:       `\1 is not supported`,
		`\p{Klingon}`: "property",
		`[[:alpha:]]`: "POSIX",
		`[a-`:         "[ without ]",
		`(a`:          "( without )",
		`a)`:          "unmatched",
		`a{2`:         "{ without }",
		`*a`:          "nothing to repeat",
		`(?i:[a-z])`:  "ranges under",
		`a{1,2}{3}`:   "repetition of a repetition",
		`\`:           "ends in a backslash",
	} {
		if _, err := compileRegex(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", pattern, err, want)
		}
	}
}

func FuzzRegex(f *testing.F) {
	for _, p := range append(regexCases, patternO200K, patternCL100K2, `[\p{L}&&[^\p{Han}]]+`) {
		f.Add(p, "ab Abc12 中文'S")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 200 || len(s) > 200 {
			return
		}
		re, err := compileRegex(pattern)
		if err != nil {
			return
		}
		for at := 0; at < len(s); {
			start, end, ok := re.find(s, at)
			if !ok {
				break
			}
			if start < at || end <= start || end > len(s) {
				t.Fatalf("%q on %q from %d: match %d…%d", pattern, s, at, start, end)
			}
			at = end
		}
	})
}
