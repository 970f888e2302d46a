package pytext

import (
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// Wanted values were printed by Python 3.11.

func TestCharacterClassesArePythons(t *testing.T) {
	for r, want := range map[rune][3]bool{ // space, word, digit
		' ': {true}, '\t': {true}, '\x1c': {true}, '\x1f': {true}, '\u0085': {true}, '\u00a0': {true},
		'\u2028': {true}, '\u3000': {true}, '\u200b': {}, '\ufeff': {}, '\x00': {},
		'a': {false, true}, '_': {false, true}, '9': {false, true, true}, '-': {}, '@': {}, '[': {},
		'é': {false, true}, '字': {false, true}, '٣': {false, true, true}, '９': {false, true, true},
		'²': {false, true}, '½': {false, true}, 'Ⅷ': {false, true}, '\u0301': {}, '’': {},
	} {
		if got := [3]bool{IsSpace(r), IsWord(r), IsDigit(r)}; got != want {
			t.Errorf("%U: space, word, digit %v, want %v", r, got, want)
		}
	}
}

func TestLowerIsPythons(t *testing.T) {
	for in, want := range map[string]string{
		"ABC Éß": "abc éß", "İx": "i\u0307x", "ΑΣ": "ας", "ΣΑ": "σα", "Σ": "σ", "ΑΣ'Α": "ασ'α", "ΑΣ.": "ας.", "ǅ": "ǆ",
	} {
		if got := Lower(in); got != want {
			t.Errorf("Lower(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSplitting(t *testing.T) {
	for name, tt := range map[string]struct{ got, want any }{
		"fields between any white space": {Fields("\u3000a\x1db\u00a0 c"), []string{"a", "b", "c"}},
		"runs of digits":                 {Digits("a1b22 ٣"), []string{"1", "22", "٣"}},
		"the first line after newlines":  {FirstLine("\n\na\nb"), "a"},
		"a line with a carriage return":  {FirstLine(" \r\nb"), " \r"},
		"nothing but newlines":           {FirstLine("\n\n"), ""},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func FuzzLowerStaysText(f *testing.F) {
	f.Add("İΣ Σ")
	f.Fuzz(func(t *testing.T, s string) {
		if utf8.ValidString(s) && !utf8.ValidString(Lower(s)) {
			t.Errorf("Lower(%q) is not UTF-8", s)
		}
	})
}
