package longbench

import (
	"math"
	"strings"
	"unicode/utf8"
)

// The marks by which the reference recognises lines that are no code.
var lineMarks = [...]string{"`", "#", "//"}

// codeSimilarity compares the first line of code in the prediction with the
// answer, by Python's fuzz.ratio.
func (s *scorer) codeSimilarity(prediction, answer string) pairScore {
	line, permissive := "", ""
	found := false
	for l := range strings.SplitSeq(strings.TrimLeft(prediction, "\n"), "\n") {
		marked, wrong := false, false
		for _, mark := range lineMarks {
			if strings.Contains(l, mark) {
				marked = true
				wrong = wrong || !strings.Contains(answer, mark)
			}
		}
		if !wrong && !found {
			permissive, found = l, true
		}
		if !marked {
			line = l
			break
		}
	}
	score := pairScore{compat: s.code.ratio(line, answer, true)}
	score.corrected = s.code.ratio(permissive, answer, false)
	score.reason = Autojunk
	if line != permissive {
		score.reason = MarkedLine
	}
	return score
}

// autojunkLength is the length from which difflib ignores popular characters.
const autojunkLength = 200

// matcher is Python's difflib.SequenceMatcher over characters, reduced to its
// ratio. It keeps its buffers between calls.
type matcher struct {
	a, b []rune
	// first and next chain the positions of each character of b; popular ones
	// have none when autojunk is on.
	first map[rune]int32
	next  []int32
	// runs[j+1] is the length of the common run that ends at b[j].
	runs, previous []int32
	pending        [][4]int
}

// ratio is fuzz.ratio(a, b) / 100: twice the matched characters over all, in whole
// percents.
func (m *matcher) ratio(a, b string, autojunk bool) float64 {
	if a == b {
		return 1
	}
	if a == "" || b == "" {
		return 0
	}
	m.a, m.b = appendRunes(m.a[:0], a), appendRunes(m.b[:0], b)
	m.index(autojunk)
	matched := 0
	m.pending = append(m.pending[:0], [4]int{0, len(m.a), 0, len(m.b)})
	for len(m.pending) > 0 {
		r := m.pending[len(m.pending)-1]
		m.pending = m.pending[:len(m.pending)-1]
		i, j, size := m.longest(r[0], r[1], r[2], r[3])
		if size == 0 {
			continue
		}
		matched += size
		if r[0] < i && r[2] < j {
			m.pending = append(m.pending, [4]int{r[0], i, r[2], j})
		}
		if i+size < r[1] && j+size < r[3] {
			m.pending = append(m.pending, [4]int{i + size, r[1], j + size, r[3]})
		}
	}
	ratio := 2 * float64(matched) / float64(len(m.a)+len(m.b))
	return math.RoundToEven(100*ratio) / 100
}

func appendRunes(to []rune, s string) []rune {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		to, s = append(to, r), s[n:]
	}
	return to
}

func (m *matcher) index(autojunk bool) {
	if m.first == nil {
		m.first = map[rune]int32{}
	}
	clear(m.first)
	m.next = grown(m.next, len(m.b))
	for j := len(m.b) - 1; j >= 0; j-- {
		next, ok := m.first[m.b[j]]
		if !ok {
			next = -1
		}
		m.next[j] = next
		m.first[m.b[j]] = int32(j)
	}
	if n := len(m.b); autojunk && n >= autojunkLength {
		for r, j := range m.first {
			count := 0
			for ; j >= 0; j = m.next[j] {
				count++
			}
			if count > n/100+1 {
				delete(m.first, r)
			}
		}
	}
	m.runs, m.previous = grown(m.runs, len(m.b)+1), grown(m.previous, len(m.b)+1)
	clear(m.runs)
	clear(m.previous)
}

// longest finds the longest common run of a[alo:ahi] and b[blo:bhi], the earliest
// in a and then in b among equals.
func (m *matcher) longest(alo, ahi, blo, bhi int) (besti, bestj, size int) {
	besti, bestj = alo, blo
	for i := alo; i < ahi; i++ {
		for j := m.position(m.a[i]); j >= 0 && int(j) < bhi; j = m.next[j] {
			if int(j) < blo {
				continue
			}
			k := m.previous[j] + 1
			m.runs[j+1] = k
			if int(k) > size {
				besti, bestj, size = i-int(k)+1, int(j)-int(k)+1, int(k)
			}
		}
		if i > alo {
			m.forget(m.previous, m.a[i-1])
		}
		m.runs, m.previous = m.previous, m.runs
	}
	if ahi > alo {
		m.forget(m.previous, m.a[ahi-1])
	}
	// Popular characters start no run, but a run extends over them.
	for besti > alo && bestj > blo && m.a[besti-1] == m.b[bestj-1] {
		besti, bestj, size = besti-1, bestj-1, size+1
	}
	for besti+size < ahi && bestj+size < bhi && m.a[besti+size] == m.b[bestj+size] {
		size++
	}
	return besti, bestj, size
}

func (m *matcher) position(r rune) int32 {
	if j, ok := m.first[r]; ok {
		return j
	}
	return -1
}

// forget zeroes the entries that character r has set.
func (m *matcher) forget(runs []int32, r rune) {
	for j := m.position(r); j >= 0; j = m.next[j] {
		runs[j+1] = 0
	}
}
