package needle

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// pieces is a tokenizer of our own: a token is a character sequence between
// spaces, with the space before it, as in byte-pair vocabularies; ids are handed
// out from base on, so that no two vocabularies number the period alike.
type pieces struct {
	ids   map[string]int32
	texts map[int32]string
	next  int32
}

func newPieces(base int32) *pieces {
	return &pieces{ids: map[string]int32{}, texts: map[int32]string{}, next: base}
}

func (p *pieces) Encode(text string) []int32 {
	var out []int32
	add := func(s string) {
		id, ok := p.ids[s]
		if !ok {
			id, p.next = p.next, p.next+1
			p.ids[s], p.texts[id] = id, s
		}
		out = append(out, id)
	}
	start := 0
	for i, r := range text {
		if i > start && (r == ' ' || r == '\n' || strings.ContainsRune(".!?。！？", r) || text[i-1] == '\n' || r > 0x2000) {
			add(text[start:i])
			start = i
		}
	}
	if start < len(text) {
		add(text[start:])
	}
	return out
}

func (p *pieces) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(p.texts[id])
	}
	return b.String()
}

func sentences(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Sentence number %d says little about 3.14 or %d. ", i, i*i)
	}
	return b.String()
}

func load(t *testing.T, tok Tokenizer, text string, length int) *Haystack {
	t.Helper()
	h, err := Load(fstest.MapFS{"a.txt": {Data: []byte(text)}}, tok, length)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func paper(t *testing.T) Test {
	t.Helper()
	test, err := Lookup(Paper)
	if err != nil {
		t.Fatal(err)
	}
	return test
}

// The reference compares token ids with one vocabulary's period (30930) and
// slides back to depth 0 when there is none of it.
func TestNeedleKeepsItsDepthUnderAnyVocabulary(t *testing.T) {
	test := paper(t)
	for _, base := range []int32{0, 30000, 100000} {
		tok := newPieces(base)
		h := load(t, tok, sentences(400), 2000)
		for _, c := range (Grid{Lengths: []int{500, 2000}, Depths: []float64{0, 0.1, 0.25, 0.5, 0.9, 1}}).Cells() {
			p, err := h.Place(test, c)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(p.ActualDepth-c.Depth) > 10/float64(c.Length) {
				t.Errorf("base %d, %s: actual depth %v", base, c.ID(), p.ActualDepth)
			}
			before, after, ok := strings.Cut(p.Context, "\n"+test.Needle+"\n")
			if !ok || strings.Contains(after, test.Needle) {
				t.Fatalf("%s: the needle is not there once", c.ID())
			}
			if c.Depth > 0 && c.Depth < 1 && !strings.HasSuffix(strings.TrimSpace(before), ".") {
				t.Errorf("%s: the needle cuts a sentence: …%q", c.ID(), before[max(0, len(before)-30):])
			}
			if c.Depth > 0 && c.Depth < 1 && strings.HasSuffix(before, "3.") {
				t.Errorf("%s: a decimal point is taken for a sentence end", c.ID())
			}
			if d := p.ActualTokens - c.Length; d < -3 || d > 3 {
				t.Errorf("%s: %d tokens", c.ID(), p.ActualTokens)
			}
		}
	}
}

func TestNeedleGoesToTheNearestSentenceEnd(t *testing.T) {
	test := Test{Needle: "N.", Question: "?q", Expected: []string{"n"}}
	for name, tt := range map[string]struct {
		text   string
		depth  float64
		before string
	}{
		"ahead when that is nearer":      {"One two three four five six. Seven.", 0.6, "One two three four five six."},
		"behind when that is nearer":     {"One. Two three four five six seven. Eight.", 0.3, "One."},
		"Chinese without spaces":         {"一二三。四五六七八九。十", 0.4, "一二三。"},
		"an exclamation in quotes stays": {"He said \"go!\" Then he left town for good. End.", 0.45, "He said \"go!\""},
	} {
		t.Run(name, func(t *testing.T) {
			tok := newPieces(0)
			n := len(tok.Encode(tt.text + "\n"))
			h := load(t, tok, tt.text, n)
			p, err := h.Place(test, Cell{Length: n + len(tok.Encode("\nN.\n")), Depth: tt.depth})
			if err != nil {
				t.Fatal(err)
			}
			before, _, _ := strings.Cut(p.Context, "\nN.\n")
			if diff := cmp.Diff(tt.before, before); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// sentencePieces is a tokenizer of our own in SentencePiece's manner: a space in front of every text, spaces in front of words,
// characters outside of ASCII as byte tokens, and a decoder that drops the first space and shows parts of characters as U+FFFD.
type sentencePieces struct{ pieces }

func (p *sentencePieces) Encode(text string) []int32 {
	var out []int32
	add := func(s string) {
		id, ok := p.ids[s]
		if !ok {
			id, p.next = p.next, p.next+1
			p.ids[s], p.texts[id] = id, s
		}
		out = append(out, id)
	}
	text, start := " "+text, 0
	for i := 0; i <= len(text); i++ {
		if i == len(text) || i > start && (strings.IndexByte(" \n.!?\"", text[i]) >= 0 || text[i-1] == '\n' || text[i] >= 0x80 || text[i-1] >= 0x80) {
			if start < i {
				add(text[start:i])
			}
			start = i
		}
	}
	return out
}

func (p *sentencePieces) Decode(ids []int32) string {
	return strings.Map(func(r rune) rune { return r }, strings.TrimPrefix(p.pieces.Decode(ids), " ")) // Map writes U+FFFD for each bad byte
}

// English without line breaks and Chinese: what follows a sentence is seen with its space, and a mark of three byte tokens is seen whole.
func TestNeedleFindsOrdinarySentenceEndsInSentencePiecesManner(t *testing.T) {
	test := paper(t)
	chinese := strings.Repeat("这个城市有一座很长的桥。桥下的河流向东方！", 80)
	for name, text := range map[string]string{"English": sentences(300), "Chinese": chinese} {
		tok := &sentencePieces{*newPieces(0)}
		h := load(t, tok, text, 1500)
		for _, c := range (Grid{Lengths: []int{1500}, Depths: []float64{0.1, 0.25, 0.5, 0.63, 0.9}}).Cells() {
			p, err := h.Place(test, c)
			if err != nil {
				t.Fatal(name, err)
			}
			if math.Abs(p.ActualDepth-c.Depth) > 0.02 {
				t.Errorf("%s, %s: actual depth %v", name, c.ID(), p.ActualDepth)
			}
			before, after, _ := strings.Cut(p.Context, "\n"+test.Needle+"\n")
			if before == "" || !strings.ContainsAny(before[len(before)-3:], ".。！") || strings.Contains(p.Context, "\ufffd") {
				t.Errorf("%s, %s: the needle cuts a sentence: …%q", name, c.ID(), before[max(0, len(before)-30):])
			}
			if whole := before + strings.TrimPrefix(after, " "); !strings.HasPrefix(strings.ReplaceAll(text, " ", ""), strings.ReplaceAll(whole, " ", "")) {
				t.Errorf("%s, %s: the haystack has changed", name, c.ID())
			}
		}
	}
}

func TestAbbreviationsEndNoSentence(t *testing.T) {
	for name, tok := range map[string]Tokenizer{"byte pairs": newPieces(0), "SentencePiece": &sentencePieces{*newPieces(0)}} {
		for text, want := range map[string]string{
			"He met Mr. Brown at noon. Then he left.":       "He met Mr. Brown at noon.",
			"It is by J. R. Ewing from Dallas. It sold.":    "It is by J. R. Ewing from Dallas.",
			"See e.g. Chapter four for that. It is long.":   "See e.g. Chapter four for that.",
			"He asked \"why?\" and went home. Nobody knew.": "He asked \"why?\" and went home.",
			"About approx. ten of them said no. Others yes": "About approx. ten of them said no.",
			"So it was and so am I. Then it was not.":       "So it was and so am I.",
		} {
			ids := tok.Encode(text)
			at, err := load(t, tok, text, len(ids)).sentenceEnd(ids, 3)
			if err != nil {
				t.Errorf("%s: %q: %v", name, text, err)
				continue
			}
			if got := tok.Decode(ids[:at]); got != want {
				t.Errorf("%s: the first sentence is %q, want %q", name, got, want)
			}
		}
	}
}

func TestHaystackIsSortedAndRepeated(t *testing.T) {
	tok := newPieces(0)
	h, err := Load(fstest.MapFS{
		"b.txt": {Data: []byte("Two.")}, "a.txt": {Data: []byte("One.\n")}, "c/d.txt": {Data: []byte("Three.")},
		"notes.md": {Data: []byte("No.")},
	}, tok, 20)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Decode(h.ids); len(h.ids) != 20 || !strings.HasPrefix(got, "One.\nTwo.\nThree.\nOne.\nTwo.\n") {
		t.Errorf("%d tokens: %q", len(h.ids), got)
	}
	for name, files := range map[string]fstest.MapFS{
		"no files":    {},
		"empty files": {"a.txt": {Data: []byte("\n")}},
	} {
		if _, err := Load(files, tok, 5); !errors.Is(err, ErrNoText) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load(fstest.MapFS{"a.txt": {Data: []byte("\xff")}}, tok, 5); err == nil || !strings.Contains(err.Error(), "a.txt") {
		t.Error("binary file:", err)
	}
}

func TestPlaceRefusesImpossibleCells(t *testing.T) {
	test := paper(t)
	h := load(t, newPieces(0), sentences(20), 100)
	flat := load(t, newPieces(0), strings.Repeat("word ", 200), 100)
	for name, tt := range map[string]struct {
		h    *Haystack
		test Test
		cell Cell
		want string
	}{
		"no room for the needle":    {h, test, Cell{5, 0.5}, "no room"},
		"a haystack too short":      {h, test, Cell{500, 0.5}, "was loaded with 100"},
		"a depth beyond the end":    {h, test, Cell{90, 1.5}, "between 0 and 1"},
		"a depth that is no number": {h, test, Cell{90, math.NaN()}, "between 0 and 1"},
		"no sentence end anywhere":  {flat, test, Cell{90, 0.5}, "no sentence end"},
		"no needle":                 {h, Test{Question: "q", Expected: []string{"x"}}, Cell{90, 0.5}, "needle is empty"},
		"no expectation":            {h, Test{Needle: "n", Question: "q"}, Cell{90, 0.5}, "expected"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tt.h.Place(tt.test, tt.cell); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not mention %q", err, tt.want)
			}
		})
	}
}

func TestFound(t *testing.T) {
	test := paper(t)
	for name, tt := range map[string]struct {
		answer string
		want   float64
	}{
		"the needle itself":           {test.Needle, 1},
		"in other words":              {"Sit in dolores park, eating a SANDWICH, on a sunny  day!", 1},
		"a part of it":                {"Eat a sandwich.", 1. / 3},
		"nothing of it":               {"Visit the bridge.", 0},
		"parts of words do not count": {"sandwiches", 0},
		"no answer":                   {"", 0},
	} {
		if got := test.Found(tt.answer); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if _, err := Lookup("other"); err == nil {
		t.Error("an unknown test is accepted")
	}
}

func TestAGridWithACellTwiceIsRefused(t *testing.T) {
	for _, g := range []Grid{
		{Lengths: []int{200, 300, 200}, Depths: []float64{0.5}},
		{Lengths: []int{200}, Depths: []float64{0.5, 0.1, 0.50}},
	} {
		if err := g.Validate(); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%+v: %v", g, err)
		}
	}
}

func TestPaperGridIsTheReferences(t *testing.T) {
	want := Grid{
		Lengths: []int{1000, 7556, 14111, 20667, 27222, 33778, 40333, 46889, 53444, 60000},
		Depths:  []float64{0.1, 0.19, 0.28, 0.37, 0.46, 0.54, 0.63, 0.72, 0.81, 0.9},
	}
	if diff := cmp.Diff(want, PaperGrid()); diff != "" {
		t.Error(diff)
	}
	if n := len(PaperGrid().Cells()); n != 100 {
		t.Error(n, "cells")
	}
}

func FuzzPlaceHidesTheNeedleOnce(f *testing.F) {
	f.Add("One. Two. Three four five. ", 30, 0.5)
	f.Add("一。二。", 20, 0.2)
	test := Test{Needle: "Needle here.", Question: "where?", Expected: []string{"here"}}
	f.Fuzz(func(t *testing.T, text string, length int, depth float64) {
		tok := newPieces(0)
		h, err := Load(fstest.MapFS{"a.txt": {Data: []byte(text)}}, tok, max(1, min(length, 1000)))
		if err != nil {
			return
		}
		p, err := h.Place(test, Cell{Length: min(length, 1000), Depth: depth})
		if err == nil && (!strings.Contains(p.Context, test.Needle) || p.ActualDepth < 0 || p.ActualDepth > 1) {
			t.Errorf("%+v", p)
		}
	})
}
