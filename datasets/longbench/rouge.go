package longbench

import (
	"slices"
	"strings"
	"unicode"

	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// The reference walks the table of the longest common subsequence by recursion,
// one Python frame a step, and Python stops at 1,000. What the scorer has on the
// stack already decides how many steps are left: the frames from eval.py down to
// the walk, one more where Chinese words are cut first. Counted with Python 3.11;
// 3.8 has one step less.
const (
	pythonFrames = 1000
	englishDepth = pythonFrames - 9
	chineseDepth = englishDepth - 1
)

// rouge computes ROUGE-L as the Python package rouge 1.0.1 does: sentences end at
// every full stop, words are compared as sets, the subsequences of all pairs of
// sentences are united, and 1e-8 keeps F from dividing by zero.
//
// Subsequences come from a bit-parallel table (Hyyrö 2004): one bit a cell says
// whether the length grows there, which is all the walk back needs.
type rouge struct {
	ids    map[string]int32
	hyp    [][]int32 // sentences as word ids
	ref    [][]int32
	masks  []uint64 // by word id: where the word stands in the hypothesis sentence
	rows   []uint64 // by reference word: zero bits where the length grows
	common []bool   // by word id: part of any subsequence
}

// score compares two texts. maxDepth is the number of recursive calls that the
// reference has left.
func (r *rouge) score(hypothesis, reference string, maxDepth int) pairScore {
	if r.ids == nil {
		r.ids = map[string]int32{}
	}
	clear(r.ids)
	r.hyp = r.sentences(r.hyp[:0], hypothesis)
	hypWords := len(r.ids)
	r.ref = r.sentences(r.ref[:0], reference)
	if len(r.hyp) == 0 || len(r.ref) == 0 {
		// The original raises "Hypothesis is empty" and takes that for 0, which an
		// empty summary deserves.
		return same(0)
	}
	vocabulary := len(r.ids)
	r.common = grown(r.common, vocabulary)
	clear(r.common)
	refWords := 0
	for _, s := range r.ref {
		for _, w := range s {
			if !r.common[w] {
				r.common[w] = true
				refWords++
			}
		}
	}
	clear(r.common)
	depth := 0
	for _, h := range r.hyp {
		depth = max(depth, r.mark(h, vocabulary))
	}
	overlap := 0
	for _, c := range r.common {
		if c {
			overlap++
		}
	}
	recall := float64(overlap) / float64(refWords)
	precision := float64(overlap) / float64(hypWords)
	f := 2 * (precision * recall / (precision + recall + 1e-8))
	if depth > maxDepth {
		return pairScore{0, f, RecursionLimit}
	}
	return same(f)
}

// sentences appends the text's sentences as word ids. White space around a full
// stop leaves a sentence with one empty word, as in the original.
func (r *rouge) sentences(to [][]int32, text string) [][]int32 {
	for sentence := range strings.SplitSeq(text, ".") {
		if sentence == "" {
			continue
		}
		var words []int32
		if len(to) < cap(to) { // reuse what an earlier text left there
			words = to[: len(to)+1 : cap(to)][len(to)][:0]
		}
		for w := range strings.FieldsFuncSeq(sentence, pytext.IsSpace) {
			words = append(words, r.id(w))
		}
		if len(words) == 0 {
			words = append(words, r.id(""))
		}
		to = append(to, words)
	}
	return to
}

func (r *rouge) id(word string) int32 {
	id, ok := r.ids[word]
	if !ok {
		id = int32(len(r.ids))
		r.ids[word] = id
	}
	return id
}

// mark marks the words of the longest common subsequences of one hypothesis
// sentence with every reference sentence, and returns the most recursive calls
// that the reference makes for one of them.
func (r *rouge) mark(hyp []int32, vocabulary int) int {
	blocks := (len(hyp) + 63) / 64
	r.masks = grown(r.masks, vocabulary*blocks)
	for _, w := range hyp {
		clear(r.masks[int(w)*blocks : (int(w)+1)*blocks])
	}
	for _, ref := range r.ref {
		for _, w := range ref {
			clear(r.masks[int(w)*blocks : (int(w)+1)*blocks])
		}
	}
	for j, w := range hyp {
		r.masks[int(w)*blocks+j/64] |= 1 << (j % 64)
	}
	depth := 0
	for _, ref := range r.ref {
		r.fill(ref, blocks)
		depth = max(depth, r.walk(ref, hyp, blocks))
	}
	return depth
}

// fill computes a row of bits for every word of the reference sentence.
func (r *rouge) fill(ref []int32, blocks int) {
	r.rows = grown(r.rows, (len(ref)+1)*blocks)
	row := r.rows[:blocks]
	for i := range row {
		row[i] = ^uint64(0)
	}
	for i, w := range ref {
		next := r.rows[(i+1)*blocks : (i+2)*blocks]
		mask := r.masks[int(w)*blocks : (int(w)+1)*blocks]
		var carry uint64
		for b, v := range row {
			u := v & mask[b]
			sum := v + u + carry
			carry = (v&u | (v|u)&^sum) >> 63
			next[b] = sum | v&^mask[b]
		}
		row = next
	}
}

// walk follows the path that the reference's recursion takes from the table's last
// cell, marks the words it meets and returns the number of calls.
func (r *rouge) walk(ref, hyp []int32, blocks int) int {
	i, j, calls := len(ref), len(hyp), 1
	for ; i > 0 && j > 0; calls++ {
		switch {
		case ref[i-1] == hyp[j-1]:
			r.common[ref[i-1]] = true
			i, j = i-1, j-1
		case r.rows[i*blocks+(j-1)/64]>>((j-1)%64)&1 == 0:
			// The length grows in this column, so the cell above is the larger.
			i--
		default:
			j--
		}
	}
	return calls
}

// grown returns a slice of length n, s where it is large enough; its contents are
// arbitrary.
func grown[T any](s []T, n int) []T {
	return slices.Grow(s[:0], n)[:n]
}

// CharacterAwareRougeL is ROUGE-L without Python's limits in which every Han
// character is a word, so that Chinese needs no dictionary. It is no LongBench metric.
func CharacterAwareRougeL(hypothesis, reference string) float64 {
	var r rouge
	return r.score(spacedHan(hypothesis), spacedHan(reference), pythonFrames).corrected
}

func spacedHan(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.Is(unicode.Han, r) {
			b.WriteByte(' ')
			b.WriteRune(r)
			b.WriteByte(' ')
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
