package longbench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pmezard/go-difflib/difflib"
)

// The wanted numbers of this file follow from the definitions by hand, or were
// printed by the Python originals where the claim is about one of their oddities.

func TestNormalizeAnswer(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"articles go, parts of words stay":          {"The cat, an ant; a theatre!", "cat ant theatre"},
		"punctuation goes before articles":          {"t-he end", "end"},
		"other scripts' letters border articles":    {"éa a é", "éa é"},
		"a mark is no word character":               {"a\u0301 b", "\u0301 b"},
		"information separators are space":          {"x\x1cy\u00a0z", "x y z"},
		"a dotted capital I becomes two characters": {"İ", "i\u0307"},
		"a final capital sigma":                     {"ΟΔΟΣ", "οδος"},
		"underscores are punctuation":               {"a_b the_", "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, NormalizeAnswer(tt.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	classes := []string{"sport", "port", "art", "chart"}
	for name, tt := range map[string]struct {
		metric             Metric
		prediction, answer string
		classes            []string
		compat, corrected  float64
	}{
		"F1 of bags of words":                       {QAF1, "red red blue", "red green", nil, 0.4, 0.4},
		"F1 without common words":                   {QAF1, "x", "y", nil, 0, 0},
		"nothing predicted":                         {QAF1, "", "y", nil, 0, 0},
		"the right count among others":              {Count, "5 of 7, so 5", "5", nil, 2. / 3, 2. / 3},
		"no number at all":                          {Count, "five", "5", nil, 0, 0},
		"a full-width digit is another number":      {Count, "５ 5", "5", nil, 0.5, 0.5},
		"a retrieved paragraph":                     {Retrieval, "Paragraph 3", "Paragraph 3", nil, 1, 1},
		"a hedged retrieval":                        {Retrieval, "3 or 4", "Paragraph 3", nil, 0.5, 0.5},
		"a Chinese paragraph":                       {RetrievalChinese, "段落12", "段落12", nil, 1, 1},
		"one class named":                           {Classification, "it is art", "art", classes, 1, 1},
		"two classes named":                         {Classification, "art and sport", "art", classes, 1. / 3, 1. / 3},
		"a part of the right class does not count":  {Classification, "sport", "sport", classes, 1, 1},
		"the class after a removed one escapes":     {Classification, "abc", "abc", []string{"a", "b", "abc"}, 0.5, 1},
		"code compares the first line of code":      {CodeSimilarity, "\n# note\nx = 1\ny = 2", "x = 1", nil, 1, 1},
		"no line of code":                           {CodeSimilarity, "# a\n// b", "x", nil, 0, 0},
		"a right line with a mark":                  {CodeSimilarity, "#define A 1\nint b;", "#define A 1", nil, 0.35, 1},
		"ROUGE of equal texts misses 1 by its 1e-8": {RougeL, "one two", "one two", nil, 0.999999995, 0.999999995},
		"ROUGE of an empty text":                    {RougeL, "...", "one", nil, 0, 0},
		"white space is a sentence of one word":     {RougeL, " ", "one. ", nil, 0.6666666622222223, 0.6666666622222223},
	} {
		t.Run(name, func(t *testing.T) {
			var s scorer
			got, err := s.compare(tt.metric, tt.prediction, tt.answer, tt.classes, tt.classes)
			if err != nil {
				t.Fatal(err)
			}
			if got.compat != tt.compat || got.corrected != tt.corrected {
				t.Errorf("compat %v, corrected %v; want %v, %v", got.compat, got.corrected, tt.compat, tt.corrected)
			}
		})
	}
}

func TestCompareErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		metric       Metric
		answer, want string
	}{
		"a retrieval answer without number": {Retrieval, "3", "no paragraph number"},
		"Chinese without a dictionary":      {QAF1Chinese, "是", "jieba"},
		"an unknown metric":                 {"bleu", "x", "not known"},
	} {
		t.Run(name, func(t *testing.T) {
			var s scorer
			if _, err := s.compare(tt.metric, "x", tt.answer, nil, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not mention %q", err, tt.want)
			}
		})
	}
}

// numbered returns n different words, which share none with other prefixes.
func numbered(prefix string, n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprint(prefix, i)
	}
	return strings.Join(words, " ")
}

func TestRougeScoresZeroBeyondPythonsRecursionLimit(t *testing.T) {
	var r rouge
	for name, tt := range map[string]struct {
		words int
		zero  bool
	}{
		"the longest path that fits": {englishDepth - 1, false},
		"one step more":              {englishDepth, true},
	} {
		text := numbered("w", tt.words)
		got := r.score(text, text, englishDepth)
		if (got.compat == 0) != tt.zero || got.corrected < 0.99 {
			t.Errorf("%s (%d words): %+v", name, tt.words, got)
		}
		if tt.zero && got.reason != RecursionLimit {
			t.Errorf("%s: the correction is not named: %+v", name, got)
		}
	}
}

// plainRouge is ROUGE-L from the full table, without bits and buffers.
func plainRouge(hyp, ref string) (f float64, calls int) {
	split := func(text string) (out [][]string) {
		for s := range strings.SplitSeq(text, ".") {
			if s != "" {
				out = append(out, strings.Split(strings.Join(strings.Fields(s), " "), " "))
			}
		}
		return out
	}
	set := func(sentences [][]string) int {
		m := map[string]bool{}
		for _, s := range sentences {
			for _, w := range s {
				m[w] = true
			}
		}
		return len(m)
	}
	h, r := split(hyp), split(ref)
	if len(h) == 0 || len(r) == 0 {
		return 0, 0
	}
	union := map[string]bool{}
	for _, x := range r {
		for _, y := range h {
			table := make([][]int, len(x)+1)
			for i := range table {
				table[i] = make([]int, len(y)+1)
				for j := 1; i > 0 && j <= len(y); j++ {
					if table[i][j] = max(table[i-1][j], table[i][j-1]); x[i-1] == y[j-1] {
						table[i][j] = table[i-1][j-1] + 1
					}
				}
			}
			i, j, steps := len(x), len(y), 1
			for ; i > 0 && j > 0; steps++ {
				if x[i-1] == y[j-1] {
					union[x[i-1]] = true
					i, j = i-1, j-1
				} else if table[i-1][j] > table[i][j-1] {
					i--
				} else {
					j--
				}
			}
			calls = max(calls, steps)
		}
	}
	recall, precision := float64(len(union))/float64(set(r)), float64(len(union))/float64(set(h))
	return 2 * (precision * recall / (precision + recall + 1e-8)), calls
}

func TestBitParallelRougeEqualsTheFullTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := func(words int) string {
		var b strings.Builder
		for range words {
			fmt.Fprintf(&b, "%c", 'a'+rng.IntN(6))
			b.WriteString([]string{" ", " ", " ", " ", " ", " ", ". ", "."}[rng.IntN(8-rng.IntN(3))])
		}
		return b.String()
	}
	var r rouge // one for all: the buffers must not leak from text to text
	for i := range 400 {
		hyp, ref := text(rng.IntN(300)), text(rng.IntN(300))
		if i%5 == 0 {
			hyp, ref = strings.ReplaceAll(hyp, ".", " "), strings.ReplaceAll(ref, ".", " ")
		}
		want, calls := plainRouge(hyp, ref)
		got := r.score(hyp, ref, calls)
		if got.compat != want || got.corrected != want {
			t.Fatalf("%q against %q: %+v, want %v", hyp, ref, got, want)
		}
		if calls > 0 && want > 0 && r.score(hyp, ref, calls-1).compat != 0 {
			t.Fatalf("%q against %q: the walk makes fewer than %d calls", hyp, ref, calls)
		}
	}
}

func characters(s string) []string {
	var out []string
	for _, r := range s {
		out = append(out, string(r))
	}
	return out
}

func TestRatioEqualsDifflib(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	text := func(n int) string {
		var b strings.Builder
		alphabet := []rune("abcdefgh    ();=\té字")
		for range n {
			b.WriteRune(alphabet[rng.IntN(len(alphabet))])
		}
		return b.String()
	}
	var m matcher
	for i := range 600 {
		a, b := text(1+rng.IntN(60)), text(1+rng.IntN(60))
		if i%3 == 0 { // long enough for autojunk, and alike
			b = text(200 + rng.IntN(150))
			cut := rng.IntN(100)
			a = b[len(characters(b[:1]))-1:]
			a = string([]rune(a)[cut:]) + text(rng.IntN(40))
		}
		sm := difflib.NewMatcherWithJunk(characters(a), characters(b), i%2 == 0, nil)
		want := math.RoundToEven(100*sm.Ratio()) / 100
		if got := m.ratio(a, b, i%2 == 0); got != want {
			t.Fatalf("ratio(%q, %q, %v) = %v, want %v", a, b, i%2 == 0, got, want)
		}
	}
}

func TestSubEM(t *testing.T) {
	for name, tt := range map[string]struct {
		prediction string
		answers    []string
		subEM, f1  float64
	}{
		"the answer inside a sentence":       {"He was born in New York, it says.", []string{"new york"}, 1, 0.4},
		"any of the answers":                 {"Paris", []string{"London", "Paris"}, 1, 1},
		"inside a word, as contained as any": {"a party", []string{"art"}, 1, 0},
		"not contained":                      {"York", []string{"New York"}, 0, 2. / 3},
		"an answer of articles alone":        {"something", []string{"the"}, 0, 0},
		"an empty prediction for an answer":  {"", []string{"x"}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SubEM(tt.prediction, tt.answers); got != tt.subEM {
				t.Errorf("SubEM %v, want %v", got, tt.subEM)
			}
			if got := AnswerF1(tt.prediction, tt.answers); math.Abs(got-tt.f1) > 1e-15 {
				t.Errorf("F1 %v, want %v", got, tt.f1)
			}
		})
	}
}

func FuzzCompareStaysInRange(f *testing.F) {
	f.Add("x = 1\n# y", "x = 1")
	f.Add("...", ". .")
	f.Add("Paragraph 3\xff", "Paragraph 3")
	f.Fuzz(func(t *testing.T, prediction, answer string) {
		var s scorer
		for _, m := range []Metric{QAF1, RougeL, Classification, Retrieval, RetrievalChinese, Count, CodeSimilarity} {
			got, err := s.compare(m, prediction, answer, []string{"x", "1"}, []string{"x", "1"})
			if err == nil && !(0 <= got.compat && got.compat <= 1 && 0 <= got.corrected && got.corrected <= 1) {
				t.Errorf("%s(%q, %q) = %+v", m, prediction, answer, got)
			}
		}
	})
}
