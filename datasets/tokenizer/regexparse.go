package tokenizer

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// regexParser is a recursive-descent parser; pos is a byte offset into src.
type regexParser struct {
	src  string
	pos  int
	fold bool
}

// maxUnroll bounds {m,n} on groups, maxCost the size of what unrolling makes.
const (
	maxUnroll = 64
	maxCost   = 10_000
)

func regexCost(n regexNode) int {
	cost := 1
	switch n := n.(type) {
	case regexSeq:
		for _, sub := range n {
			cost += regexCost(sub)
		}
	case regexAlt:
		for _, sub := range n {
			cost += regexCost(sub)
		}
	case regexLook:
		cost += regexCost(n.sub)
	case regexRepeat:
		cost += regexCost(n.sub)
		if _, set := n.sub.(regexSet); !set && !n.possessive {
			cost *= max(n.max, 1)
		}
	}
	return cost
}

func (p *regexParser) errorf(format string, args ...any) error {
	return fmt.Errorf("regex %q: at byte %d: %s", p.src, p.pos, fmt.Sprintf(format, args...))
}

func (p *regexParser) alternatives() (regexNode, error) {
	var alts regexAlt
	for {
		n, err := p.sequence()
		if err != nil {
			return nil, err
		}
		alts = append(alts, n)
		if !p.take("|") {
			break
		}
	}
	if len(alts) == 1 {
		return alts[0], nil
	}
	return alts, nil
}

func (p *regexParser) take(s string) bool {
	if strings.HasPrefix(p.src[p.pos:], s) {
		p.pos += len(s)
		return true
	}
	return false
}

func (p *regexParser) sequence() (regexNode, error) {
	var seq regexSeq
	for p.pos < len(p.src) && p.src[p.pos] != '|' && p.src[p.pos] != ')' {
		n, err := p.atom()
		if err != nil {
			return nil, err
		}
		if n, err = p.repeat(n); err != nil {
			return nil, err
		}
		seq = append(seq, n)
	}
	switch len(seq) {
	case 0:
		return regexEmpty{}, nil
	case 1:
		return seq[0], nil
	}
	return seq, nil
}

func (p *regexParser) repeat(n regexNode) (regexNode, error) {
	r := regexRepeat{sub: n}
	interval := false
	switch {
	case p.take("*"):
		r.min, r.max = 0, -1
	case p.take("+"):
		r.min, r.max = 1, -1
	case p.take("?"):
		r.min, r.max = 0, 1
	case p.take("{"):
		interval = true
		close := strings.IndexByte(p.src[p.pos:], '}')
		if close < 0 {
			return nil, p.errorf("{ without }")
		}
		lo, hi, comma := strings.Cut(p.src[p.pos:p.pos+close], ",")
		min, err1 := strconv.Atoi(lo)
		max, err2 := min, error(nil)
		if comma && hi == "" {
			max = -1
		} else if comma {
			max, err2 = strconv.Atoi(hi)
		}
		if err1 != nil || err2 != nil || (max >= 0 && max < min) || min > 1000 || max > 1000 {
			return nil, p.errorf("repetition {%s} is not supported", p.src[p.pos:p.pos+close])
		}
		p.pos += close + 1
		r.min, r.max = min, max
	default:
		return n, nil
	}
	if p.take("?") {
		return nil, p.errorf("lazy repetition is not supported")
	}
	if !interval && p.take("+") { // after {…} a + repeats the repetition
		r.possessive = true
	}
	if p.pos < len(p.src) && strings.IndexByte("*+?{", p.src[p.pos]) >= 0 {
		return nil, p.errorf("repetition of a repetition is not supported")
	}
	switch n.(type) {
	case regexSet:
	case regexLook, regexEnd, regexEmpty:
		return nil, p.errorf("repetition of an assertion is not supported")
	default:
		if !r.possessive && (r.max < 0 || r.max > maxUnroll) {
			return nil, p.errorf("unbounded repetition of a group is not supported")
		}
		if regexCost(r) > maxCost {
			return nil, p.errorf("nested repetitions are too large")
		}
	}
	return r, nil
}

func (p *regexParser) atom() (regexNode, error) {
	switch c := p.src[p.pos]; c {
	case '(':
		return p.group()
	case '[':
		set, err := p.class()
		if err != nil {
			return nil, err
		}
		return regexSet{set}, nil
	case '.':
		p.pos++
		return regexSet{&runeSet{not: true, items: []runeItem{runeRange{'\n', '\n'}}}}, nil
	case '^', '$':
		return nil, p.errorf("%q is not supported", c)
	case '*', '+', '?', '{':
		return nil, p.errorf("%q has nothing to repeat", c)
	case '\\':
		switch {
		case p.take(`\A`):
			return regexEnd{start: true}, nil
		case p.take(`\z`):
			return regexEnd{}, nil
		}
		item, err := p.escape()
		if err != nil {
			return nil, err
		}
		return regexSet{&runeSet{items: []runeItem{item}}}, nil
	}
	r, w := utf8.DecodeRuneInString(p.src[p.pos:])
	p.pos += w
	return regexSet{&runeSet{items: []runeItem{p.literal(r)}}}, nil
}

func (p *regexParser) group() (regexNode, error) {
	fold, look, not := p.fold, false, false
	switch {
	case p.take("(?:"):
	case p.take("(?i:"):
		fold = true
	case p.take("(?="):
		look = true
	case p.take("(?!"):
		look, not = true, true
	case strings.HasPrefix(p.src[p.pos:], "(?"):
		return nil, p.errorf("group %q is not supported", p.src[p.pos:min(len(p.src), p.pos+4)])
	default:
		p.pos++ // a capturing group: what it captures is not used
	}
	outer := p.fold
	p.fold = fold
	n, err := p.alternatives()
	p.fold = outer
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.errorf("( without )")
	}
	if look {
		return regexLook{sub: n, not: not}, nil
	}
	return n, nil
}

// literal is r, or under (?i:…) every character that folds to the same as r.
func (p *regexParser) literal(r rune) runeItem {
	if !p.fold {
		return runeRange{r, r}
	}
	set := &runeSet{items: []runeItem{runeRange{r, r}}}
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		set.items = append(set.items, runeRange{f, f})
	}
	return set
}

// runeItem is a part of a character class.
type runeItem interface{ has(r rune) bool }

type (
	runeRange  struct{ lo, hi rune }
	runeTables []*unicode.RangeTable
	// runeSet is the union of items, intersected with each of and, then negated if not.
	runeSet struct {
		not   bool
		items []runeItem
		and   []*runeSet
	}
)

func (x runeRange) has(r rune) bool  { return x.lo <= r && r <= x.hi }
func (x runeTables) has(r rune) bool { return unicode.In(r, x...) }

func (x *runeSet) has(r rune) bool {
	in := false
	for _, item := range x.items {
		if item.has(r) {
			in = true
			break
		}
	}
	for _, a := range x.and {
		in = in && a.has(r)
	}
	return in != x.not
}

func (p *regexParser) class() (*runeSet, error) {
	p.pos++ // [
	set := &runeSet{not: p.take("^")}
	part := set // the items of an intersection after the first go to a set of their own
	first := true
	for {
		if p.pos >= len(p.src) {
			return nil, p.errorf("[ without ]")
		}
		switch {
		case p.src[p.pos] == ']' && !first:
			p.pos++
			return set, nil
		case strings.HasPrefix(p.src[p.pos:], "[:"):
			return nil, p.errorf("a POSIX class is not supported")
		case p.take("&&"):
			part = &runeSet{}
			set.and = append(set.and, part)
			continue
		case p.src[p.pos] == '[':
			sub, err := p.class()
			if err != nil {
				return nil, err
			}
			part.items = append(part.items, sub)
			first = false
			continue
		}
		first = false
		lo, err := p.classChar()
		if err != nil {
			return nil, err
		}
		from, single := lo.(runeRange)
		if !single || from.lo != from.hi || !strings.HasPrefix(p.src[p.pos:], "-") || strings.HasPrefix(p.src[p.pos:], "-]") {
			if single {
				lo = p.literal(from.lo)
			}
			part.items = append(part.items, lo)
			continue
		}
		p.pos++
		if p.pos >= len(p.src) {
			return nil, p.errorf("[ without ]")
		}
		hi, err := p.classChar()
		if err != nil {
			return nil, err
		}
		to, ok := hi.(runeRange)
		if !ok || to.lo != to.hi || to.lo < from.lo {
			return nil, p.errorf("bad range in a class")
		}
		if p.fold {
			return nil, p.errorf("ranges under (?i:) are not supported")
		}
		part.items = append(part.items, runeRange{from.lo, to.lo})
	}
}

func (p *regexParser) classChar() (runeItem, error) {
	if p.src[p.pos] == '\\' {
		fold := p.fold
		p.fold = false // class folds single characters itself
		item, err := p.escape()
		p.fold = fold
		return item, err
	}
	r, w := utf8.DecodeRuneInString(p.src[p.pos:])
	p.pos += w
	return runeRange{r, r}, nil
}

var regexEscapes = map[byte]rune{'n': '\n', 'r': '\r', 't': '\t', 'f': '\f', 'v': '\v', 'a': '\a', 'e': 0x1B}

// wordTables is \w: letters, marks, decimal digits, connector punctuation.
var wordTables = append(properties("L", "M", "Nd", "Nl", "Pc"), unicode.Other_Alphabetic)

// latinWords are the superscripts and fractions that Oniguruma counts as \w besides.
var latinWords = ranges(0xB2, 0xB3, 0xB9, 0xB9, 0xBC, 0xBE)

func (p *regexParser) escape() (runeItem, error) {
	p.pos++ // backslash
	if p.pos >= len(p.src) {
		return nil, p.errorf("pattern ends in a backslash")
	}
	c := p.src[p.pos]
	p.pos++
	negated := func(not bool, item runeItem) runeItem { return &runeSet{not: not, items: []runeItem{item}} }
	switch c {
	case 's', 'S':
		return negated(c == 'S', runeTables{unicode.White_Space}), nil
	case 'd', 'D':
		return negated(c == 'D', property("Nd")), nil
	case 'w', 'W':
		return &runeSet{not: c == 'W', items: []runeItem{wordTables, runeTables{latinWords}}}, nil
	case 'p', 'P':
		return p.property(c == 'P')
	case 'u', 'x':
		return p.hex(c)
	}
	if r, ok := regexEscapes[c]; ok {
		return p.literal(r), nil
	}
	if c < utf8.RuneSelf && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
		return nil, p.errorf(`\%c is not supported`, c)
	}
	p.pos--
	r, w := utf8.DecodeRuneInString(p.src[p.pos:])
	p.pos += w
	return p.literal(r), nil
}

func (p *regexParser) hex(c byte) (runeItem, error) {
	digits := p.src[p.pos:]
	skip := 0
	if strings.HasPrefix(digits, "{") && c == 'x' {
		close := strings.IndexByte(digits, '}')
		if close < 0 {
			return nil, p.errorf(`\x{ without }`)
		}
		digits, skip = digits[1:close], close+1
	} else {
		n := map[byte]int{'u': 4, 'x': 2}[c]
		if len(digits) < n {
			return nil, p.errorf(`\%c is not followed by %d digits`, c, n)
		}
		digits, skip = digits[:n], n
	}
	v, err := strconv.ParseUint(digits, 16, 21)
	if err != nil || v > unicode.MaxRune {
		return nil, p.errorf(`\%c%s is no character`, c, digits)
	}
	p.pos += skip
	return p.literal(rune(v)), nil
}

func (p *regexParser) property(not bool) (runeItem, error) {
	name := ""
	if p.pos < len(p.src) && p.src[p.pos] == '{' {
		close := strings.IndexByte(p.src[p.pos:], '}')
		if close < 0 {
			return nil, p.errorf(`\p{ without }`)
		}
		name = p.src[p.pos+1 : p.pos+close]
		p.pos += close + 1
	} else if p.pos < len(p.src) {
		name = p.src[p.pos : p.pos+1]
		p.pos++
	}
	if strings.HasPrefix(name, "^") {
		not, name = !not, name[1:]
	}
	tables := property(name)
	if tables == nil {
		return nil, p.errorf(`property \p{%s} is not supported`, name)
	}
	return &runeSet{not: not, items: []runeItem{tables}}, nil
}
