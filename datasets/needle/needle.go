// Package needle is the needle-in-a-haystack test: a sentence is hidden in a long
// text at a given depth, and the model is asked for it.
//
// Order: Test (needle and question) → Haystack (texts as tokens) → Grid (lengths
// × depths) → Haystack.Place (one Prompt) → Found (exact match).
//
// Lengths are tokens of the model's own tokenizer; depths are fractions of the
// haystack, 0 its beginning and 1 its end. The needle goes to the sentence end
// nearest to the asked depth, and the depth it got is recorded. The reference
// implementation looks for one hard-coded period token instead, so that under
// another vocabulary the needle slides to depth 0; here sentence ends are found in
// the decoded text.
//
// Source: the test is G. Kamradt's; LongAlign (arXiv 2401.18058) runs it from
// 1,000 to 60,000 tokens.
package needle

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// Test is what is hidden and how it is asked for.
type Test struct {
	// Needle is the sentence to hide; it should end as a sentence does.
	Needle string `json:"needle"`
	// Question is put after the haystack.
	Question string `json:"question"`
	// Expected lists the phrases an answer must hold, all of them.
	Expected []string `json:"expected"`
}

// Paper names the test of the LongAlign paper in Lookup.
const Paper = "longalign"

// Lookup returns a built-in test by name. There is one: Paper, with needle and question as the paper's appendix C.3 states them.
func Lookup(name string) (Test, error) {
	if name != Paper {
		return Test{}, fmt.Errorf("needle test %q is not known; use %q or give needle, question and expected", name, Paper)
	}
	return Test{
		Needle:   "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.",
		Question: "What is the best thing to do in San Francisco? Here is the most relevant sentence in the context:",
		Expected: []string{"sandwich", "Dolores Park", "sunny day"},
	}, nil
}

// Validate reports what the test lacks.
func (t Test) Validate() error {
	switch {
	case strings.TrimSpace(t.Needle) == "":
		return errors.New("the needle is empty")
	case strings.TrimSpace(t.Question) == "":
		return errors.New("the needle's question is empty")
	case len(t.Expected) == 0:
		return errors.New("nothing is expected of an answer; list the phrases it must hold")
	}
	for _, e := range t.Expected {
		if normalize(e) == "" {
			return fmt.Errorf("expected phrase %q has no words", e)
		}
	}
	return nil
}

// Found is exact match: the share of expected phrases that the answer holds, as whole
// words, without regard to case, punctuation and spacing. 1 means the needle
// was found. A failed prediction has no score; do not pass it.
func (t Test) Found(answer string) float64 {
	a := " " + normalize(answer) + " "
	n := 0
	for _, e := range t.Expected {
		if strings.Contains(a, " "+normalize(e)+" ") {
			n++
		}
	}
	if n == len(t.Expected) && n > 0 {
		return 1
	}
	return float64(n) / float64(max(len(t.Expected), 1))
}

func normalize(s string) string {
	words := strings.FieldsFunc(pytext.Lower(s), func(r rune) bool { return !pytext.IsWord(r) })
	return strings.Join(words, " ")
}

// Grid is the cells of a test.
type Grid struct {
	Lengths []int     `json:"lengths"`
	Depths  []float64 `json:"depths"`
}

// PaperGrid is 10 lengths from 1,000 to 60,000 tokens and 10 depths from 0.1 to 0.9, the
// reference's configuration.
func PaperGrid() Grid {
	g := Grid{Lengths: make([]int, 10), Depths: make([]float64, 10)}
	for i := range 10 {
		g.Lengths[i] = int(math.RoundToEven(1000 + float64(i)*59000/9))
		g.Depths[i] = math.RoundToEven(10+float64(i)*80/9) / 100
	}
	return g
}

// Validate reports a grid that cannot be run.
func (g Grid) Validate() error {
	if len(g.Lengths) == 0 || len(g.Depths) == 0 {
		return errors.New("the needle grid has no lengths or no depths")
	}
	// A cell is a sample: the same one twice would be paid for twice and then refused for its ID.
	for i, n := range g.Lengths {
		if n <= 0 {
			return fmt.Errorf("needle length %d is not positive", n)
		}
		if slices.Contains(g.Lengths[:i], n) {
			return fmt.Errorf("needle length %d is there twice", n)
		}
	}
	for i, d := range g.Depths {
		if !(0 <= d && d <= 1) {
			return fmt.Errorf("needle depth %v is not between 0 and 1", d)
		}
		if slices.Contains(g.Depths[:i], d) {
			return fmt.Errorf("needle depth %v is there twice", d)
		}
	}
	return nil
}

// Cell is one length and depth.
type Cell struct {
	Length int     `json:"length"`
	Depth  float64 `json:"depth"`
}

// ID names the cell as a sample.
func (c Cell) ID() string { return fmt.Sprintf("needle-%d-%g", c.Length, c.Depth) }

// Cells lists the grid by length, then depth.
func (g Grid) Cells() []Cell {
	var cells []Cell
	for _, n := range g.Lengths {
		for _, d := range g.Depths {
			cells = append(cells, Cell{n, d})
		}
	}
	return cells
}
