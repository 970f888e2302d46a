package jieba

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// parseTable reads a Python assignment "P = {'B': {'\u4e00': -3.6, …}, …}" whose
// dictionaries are nested depth deep, and calls store with the keys (single
// characters) and the value of each number. It understands nothing else of Python.
func parseTable(src []byte, depth int, store func(path []rune, value float64) error) error {
	_, src, ok := bytes.Cut(src, []byte("P="))
	if !ok {
		return errors.New("no assignment to P")
	}
	p := tableParser{src: src, size: len(src), depth: depth, store: store}
	return p.dict(nil)
}

type tableParser struct {
	src   []byte // what is left
	size  int
	depth int
	store func([]rune, float64) error
}

func (p *tableParser) dict(path []rune) error {
	if err := p.expect('{'); err != nil {
		return err
	}
	for {
		if p.peek() == '}' {
			p.src = p.src[1:]
			return nil
		}
		r, err := p.character()
		if err != nil {
			return err
		}
		if err := p.expect(':'); err != nil {
			return err
		}
		full := append(path, r)
		if len(full) < p.depth {
			err = p.dict(full)
		} else {
			err = p.number(full)
		}
		if err != nil {
			return err
		}
		if p.peek() == ',' {
			p.src = p.src[1:]
		} else if p.peek() != '}' {
			return p.errorf("want , or }")
		}
	}
}

func (p *tableParser) number(path []rune) error {
	p.peek()
	n := bytes.IndexAny(p.src, ",}\n ")
	if n < 0 {
		return p.errorf("unfinished number")
	}
	v, err := strconv.ParseFloat(string(p.src[:n]), 64)
	if err != nil || v > 0 || v < impossible {
		return p.errorf("want a log probability")
	}
	p.src = p.src[n:]
	return p.store(path, v)
}

// character reads a string of one character, plain or as \uXXXX.
func (p *tableParser) character() (rune, error) {
	if p.peek() == 'u' { // u'…'
		p.src = p.src[1:]
	}
	if err := p.expect('\''); err != nil {
		return 0, err
	}
	var r rune
	if len(p.src) >= 6 && p.src[0] == '\\' && p.src[1] == 'u' {
		code, err := strconv.ParseUint(string(p.src[2:6]), 16, 16)
		if err != nil {
			return 0, p.errorf("bad escape")
		}
		r, p.src = rune(code), p.src[6:]
	} else {
		var n int
		r, n = utf8.DecodeRune(p.src)
		if r == utf8.RuneError || r == '\\' {
			return 0, p.errorf("want one character")
		}
		p.src = p.src[n:]
	}
	if len(p.src) == 0 || p.src[0] != '\'' {
		return 0, p.errorf("want a string of one character")
	}
	p.src = p.src[1:]
	return r, nil
}

// peek skips white space and returns the next byte, 0 at the end.
func (p *tableParser) peek() byte {
	for len(p.src) > 0 {
		switch p.src[0] {
		case ' ', '\n', '\r', '\t':
			p.src = p.src[1:]
		default:
			return p.src[0]
		}
	}
	return 0
}

func (p *tableParser) expect(b byte) error {
	if p.peek() != b {
		return p.errorf("want %q", b)
	}
	p.src = p.src[1:]
	return nil
}

func (p *tableParser) errorf(format string, args ...any) error {
	return fmt.Errorf("byte %d: %s", p.size-len(p.src), fmt.Sprintf(format, args...))
}
