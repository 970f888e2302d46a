package jieba

import (
	"slices"

	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// Cut returns the words of s in order; joined they are s again.
func (d *Dictionary) Cut(s string) []string {
	c := cutter{Dictionary: d, text: s, words: make([]string, 0, len(s)/4+1)}
	for i, r := range s {
		c.runes = append(c.runes, r)
		c.offsets = append(c.offsets, i)
	}
	c.offsets = append(c.offsets, len(s))
	c.score = make([]float64, len(c.runes)+1)
	c.end = make([]int, len(c.runes))

	for i, n := 0, len(c.runes); i < n; {
		switch {
		case inBlock(c.runes[i]):
			j := i + 1
			for j < n && inBlock(c.runes[j]) {
				j++
			}
			c.block(i, j)
			i = j
		case c.runes[i] == '\r' && i+1 < n && c.runes[i+1] == '\n':
			c.emit(i, i+2)
			i += 2
		default:
			c.emit(i, i+1)
			i++
		}
	}
	return c.words
}

// isHan reports whether the dictionary's script covers r: jieba stops at U+9FD5.
func isHan(r rune) bool { return '\u4e00' <= r && r <= '\u9fd5' }

func isLatin(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// inBlock reports whether r belongs to a block that is looked up in the
// dictionary: jieba's [\u4E00-\u9FD5a-zA-Z0-9+#&._%-].
func inBlock(r rune) bool {
	if isHan(r) || isLatin(r) {
		return true
	}
	switch r {
	case '+', '#', '&', '.', '_', '%', '-':
		return true
	}
	return false
}

// cutter is the state of one call of Cut. Positions count characters.
type cutter struct {
	*Dictionary
	text    string
	runes   []rune
	offsets []int // byte offset of each character, and the end
	words   []string

	score []float64 // of the best path from a position to the block's end
	end   []int     // where the first word of that path ends
	back  [][states]byte
}

func (c *cutter) emit(from, to int) {
	c.words = append(c.words, c.text[c.offsets[from]:c.offsets[to]])
}

// block cuts the characters [from, to) along the most probable path; of equally
// probable first words the longer wins.
func (c *cutter) block(from, to int) {
	t := &c.Dictionary.words
	c.score[to] = 0
	for i := to - 1; i >= from; i-- {
		best, end := 0.0, 0
		var node uint32
		for j := i; j < to; j++ {
			if node = t.next(node, c.runes[j]); node == 0 {
				break
			}
			if !t.isWord[node] {
				continue
			}
			if p := t.weight[node] + c.score[j+1]; end == 0 || p >= best {
				best, end = p, j+1
			}
		}
		if end == 0 { // no word starts here: the character alone, as if seen once
			best, end = -t.logTotal+c.score[i+1], i+1
		}
		c.score[i], c.end[i] = best, end
	}

	single := from // start of the run of single characters before i
	for i := from; i < to; {
		j := c.end[i]
		if j-i > 1 {
			c.singles(single, i)
			c.emit(i, j)
			single = j
		}
		i = j
	}
	c.singles(single, to)
}

// singles emits a run of characters that the dictionary left alone: as
// characters when the run is itself a word, else as the model sees them.
func (c *cutter) singles(from, to int) {
	if to-from > 1 && !c.Dictionary.words.contains(c.runes[from:to]) {
		c.unknown(from, to)
		return
	}
	for i := from; i < to; i++ {
		c.emit(i, i+1)
	}
}

// unknown cuts Han runs by the hidden Markov model and takes Latin words and
// numbers whole: jieba's [a-zA-Z0-9]+(?:\.\d+)?%? and what lies between.
func (c *cutter) unknown(from, to int) {
	for i := from; i < to; {
		var j int
		switch r := c.runes[i]; {
		case isHan(r):
			end := c.while(i, to, isHan)
			c.viterbi(i, end)
			i = end
			continue
		case isLatin(r):
			j = c.while(i, to, isLatin)
			if j+1 < to && c.runes[j] == '.' && pytext.IsDigit(c.runes[j+1]) {
				j = c.while(j+1, to, pytext.IsDigit)
			}
			if j < to && c.runes[j] == '%' {
				j++
			}
		default:
			j = c.while(i, to, func(r rune) bool { return !isHan(r) && !isLatin(r) })
		}
		c.emit(i, j)
		i = j
	}
}

// while returns the end of the run of characters from i on that satisfy in.
func (c *cutter) while(i, to int, in func(rune) bool) int {
	if k := slices.IndexFunc(c.runes[i:to], func(r rune) bool { return !in(r) }); k >= 0 {
		return i + k
	}
	return to
}
