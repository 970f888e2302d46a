package tokenizer

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// The results are those of the reference implementation (Hugging Face tokenizers 0.23).
func TestNormalFormsAreTheReferences(t *testing.T) {
	acute, dot := "\u0301", "\u0323"
	for name, tt := range map[string]struct {
		form     norm.Form
		in, want string
	}{
		"marks are put in order and composed":            {norm.NFC, "e" + acute + dot, "\u1eb9" + acute},
		"a character of Unicode 14 keeps its form":       {norm.NFKC, "\U0001079A\uff21", "\U0001079AA"},
		"a mark of Unicode 14 keeps its place":           {norm.NFD, "a" + acute + "\u0898" + acute + dot, "a" + acute + "\u0898" + dot + acute},
		"nothing is composed over a mark of Unicode 14":  {norm.NFC, "a\u0898" + acute + "e" + acute, "a\u0898" + acute + "\u00e9"},
		"forty marks are not parted":                     {norm.NFD, "\u00e9" + strings.Repeat(acute, 40), "e" + strings.Repeat(acute, 41)},
		"of forty marks the first is composed":           {norm.NFC, "e" + strings.Repeat(acute, 40), "\u00e9" + strings.Repeat(acute, 39)},
		"a mark of another class is composed over forty": {norm.NFC, "e" + strings.Repeat("\u0332", 40) + acute, "\u00e9" + strings.Repeat("\u0332", 40)},
		"forty marks are put in order":                   {norm.NFKD, "\ufb01" + strings.Repeat(acute+dot, 20), "fi" + strings.Repeat(dot, 20) + strings.Repeat(acute, 20)},
		"a joiner that was there stays":                  {norm.NFC, "e\u034f" + acute + "e" + acute, "e\u034f" + acute + "\u00e9"},
		"Hangul beside forty marks":                      {norm.NFC, "\u1100\u1161\u11a8" + strings.Repeat(acute, 40), "\uac01" + strings.Repeat(acute, 40)},
		"Hangul taken apart beside forty marks":          {norm.NFD, "\uac01" + strings.Repeat(acute, 40), "\u1100\u1161\u11a8" + strings.Repeat(acute, 40)},
		"marks are composed one after the other":         {norm.NFC, "e\u0302" + strings.Repeat(acute, 40), "\u1ebf" + strings.Repeat(acute, 39)},
	} {
		if got := (normForm{tt.form}).apply(tt.in, true); got != tt.want {
			t.Errorf("%s: got %+q, want %+q", name, got, tt.want)
		}
	}
}

// FuzzManyMarks holds the definition of the normal forms against golang.org/x/text.
func FuzzManyMarks(f *testing.F) {
	f.Add("e\u0323\u0301 \uac01\ufb01\u0344 \u1100\u1161\u11a8 \u0958\u0b94")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "\ufffd")
		for _, form := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
			want := form.String(s)
			if strings.Count(want, joiner) > strings.Count(s, joiner) {
				return
			}
			if got := (normForm{form}).manyMarks(s); got != want {
				t.Errorf("form %d of %+q: got %+q, want %+q", form, s, got, want)
			}
		}
	})
}

func TestAddedTokensThatTakeInWhiteSpaceAreTheReferences(t *testing.T) {
	tok, err := Parse(variant(t, map[string]string{
		"pre_tokenizer": `{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}`, "normalizer": `null`, "post_processor": `null`,
		"added_tokens": `[{"id":900,"content":"\n\n","lstrip":true,"rstrip":true},{"id":901,"content":"[A]","rstrip":true},{"id":902,"content":" x"}]`,
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	newlines, _ := tok.TokenID("\n\n")
	if got := tok.Encode("\n\n\n\n", false); len(got) != 1 || got[0] != newlines {
		t.Errorf("a token whose text the one before took in was emitted: %v", got)
	}
	a, _ := tok.TokenID("[A]")
	x, _ := tok.TokenID(" x")
	if got := tok.Encode("[A] x", false); len(got) != 2 || got[0] != a || got[1] != x {
		t.Errorf("got %v, want %d %d", got, a, x)
	}
}
