package jieba

import (
	"fmt"
	"io/fs"
)

// The model's states: a character begins, is inside, ends, or is a word. They
// are ordered by letter, as ties between states go to the later letter.
const (
	begin = iota // B
	end          // E
	inner        // M
	alone        // S
	states
)

const stateLetters = "BEMS"

// impossible stands for log(0) in the tables and for what they do not hold.
const impossible = -3.14e100

// before lists the two states that may precede each state, later letter first.
var before = [states][2]int{begin: {alone, end}, end: {inner, begin}, inner: {inner, begin}, alone: {alone, end}}

const hanRange = '\u9fd5' - '\u4e00' + 1

// model holds log probabilities.
type model struct {
	start [states]float64
	trans [states][states]float64 // from, to
	emit  [][states]float64       // by character, from U+4E00
}

func (m *model) load(fsys fs.FS) error {
	for i := range m.trans {
		for j := range m.trans[i] {
			m.trans[i][j] = impossible
		}
	}
	m.emit = make([][states]float64, hanRange)
	for i := range m.emit {
		m.emit[i] = [states]float64{impossible, impossible, impossible, impossible}
	}
	for _, file := range []struct {
		name  string
		depth int
		store func(path []rune, value float64) error
	}{
		{StartFile, 1, func(path []rune, v float64) error {
			s, err := state(path[0])
			if err == nil {
				m.start[s] = v
			}
			return err
		}},
		{TransFile, 2, func(path []rune, v float64) error {
			from, err := state(path[0])
			if err != nil {
				return err
			}
			to, err := state(path[1])
			if err == nil {
				m.trans[from][to] = v
			}
			return err
		}},
		{EmitFile, 2, func(path []rune, v float64) error {
			s, err := state(path[0])
			if err == nil && isHan(path[1]) {
				m.emit[path[1]-'\u4e00'][s] = v
			}
			return err
		}},
	} {
		src, err := fs.ReadFile(fsys, file.name)
		if err != nil {
			return err
		}
		if err := parseTable(src, file.depth, file.store); err != nil {
			return fmt.Errorf("%s: %w; is this jieba's model?", file.name, err)
		}
	}
	return nil
}

func state(r rune) (int, error) {
	for i, letter := range stateLetters {
		if letter == r {
			return i, nil
		}
	}
	return 0, fmt.Errorf("state %q is none of B, E, M, S", r)
}

// viterbi emits the words of the most probable state sequence for the Han
// characters [from, to). Additions are in jieba's order, because sums with
// impossible absorb the rest and leave ties, which go to the later letter.
func (c *cutter) viterbi(from, to int) {
	m := &c.hmm
	c.back = c.back[:0]
	var v [states]float64
	first := &m.emit[c.runes[from]-'\u4e00']
	for s := range v {
		v[s] = m.start[s] + first[s]
	}
	c.back = append(c.back, [states]byte{})
	for _, r := range c.runes[from+1 : to] {
		emit := &m.emit[r-'\u4e00']
		var next [states]float64
		var back [states]byte
		for s := range next {
			p, q := before[s][0], before[s][1]
			best, arg := v[p]+m.trans[p][s]+emit[s], p
			if other := v[q] + m.trans[q][s] + emit[s]; other > best {
				best, arg = other, q
			}
			next[s], back[s] = best, byte(arg)
		}
		v = next
		c.back = append(c.back, back)
	}
	last := byte(alone)
	if v[end] > v[alone] {
		last = end
	}
	// Walk back, turning each row of pointers into the state of its character.
	for i := len(c.back) - 1; i >= 0; i-- {
		prev := c.back[i][last]
		c.back[i][0] = last
		last = prev
	}
	word := from
	for i := range c.back {
		if s := c.back[i][0]; s == end || s == alone {
			c.emit(word, from+i+1)
			word = from + i + 1
		}
	}
	if word < to {
		c.emit(word, to)
	}
}
