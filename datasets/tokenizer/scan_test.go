package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var scanPieces = []string{
	" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "'s", "'S", "'ſ", "'ll", "'Ll", "'re", "'vE", "'m", "'d", "'t", "'",
	"a", "B", "Abc", "ABC", "aBC", "é", "e\u0301", "\u0301", "ß", "ʰ", "ʰA", "ǅ", "ª", "中", "ひ", "각", "ไท", "ह\u093f",
	"1", "12345", "１", "½", "Ⅳ", "!", "?!", "...", "/", "//", "\n/", "_", "$", "🦙", "\u200d", "\x00", "\ufffd", "\U0001d400", "\U00020000", "\U000e0100",
}

// regexPieces splits s by the pattern itself.
func regexPieces(re *regex, s string) (out []string) {
	preSplit{find: re.find, behavior: behaviorIsolated}.split(s, place{}, func(p string, _ place) { out = append(out, p) })
	return out
}

func scanPiecesOf(scan scanner, s string) (out []string) {
	preScan{scan}.split(s, place{}, func(p string, _ place) { out = append(out, p) })
	return out
}

func TestScannersSplitAsTheirPatternsDo(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for pattern, scan := range knownPatterns {
		re, err := compileRegex(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for range 4000 {
			var b strings.Builder
			for range 1 + rng.IntN(12) {
				b.WriteString(scanPieces[rng.IntN(len(scanPieces))])
			}
			if want, got := regexPieces(re, b.String()), scanPiecesOf(scan, b.String()); !slices.Equal(want, got) {
				t.Fatalf("%q by %q\npattern %q\nscanner %q", b.String(), pattern, want, got)
			}
		}
	}
}

func FuzzScanners(f *testing.F) {
	f.Add("I'LL go, don't\r\n  you? 12345 \u00a0中文ABCdef's//\n")
	f.Add("\u0301ʰAbª'S \t\n\x00")
	compiled := map[string]*regex{}
	for pattern := range knownPatterns {
		re, err := compileRegex(pattern)
		if err != nil {
			f.Fatal(err)
		}
		compiled[pattern] = re
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "\ufffd")
		for pattern, re := range compiled {
			if want, got := regexPieces(re, s), scanPiecesOf(knownPatterns[pattern], s); !slices.Equal(want, got) {
				t.Errorf("%q by %q\npattern %q\nscanner %q", s, pattern, want, got)
			}
		}
	})
}
