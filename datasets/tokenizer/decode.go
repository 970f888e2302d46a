package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// decoder is one step from tokens to text.
type decoder interface {
	decode(tokens []string) []string
}

type (
	decByteLevel    struct{}
	decByteFallback struct{}
	decFuse         struct{}
	decReplace      normReplace
	decStrip        struct {
		content     rune
		start, stop int
	}
	decMetaspace struct {
		replacement string
		strip       bool // the prefix the pre-tokenizer adds is taken away again
	}
)

// decode reads the tokens as bytes, those that are not in the byte alphabet (added
// tokens) as they are.
func (decByteLevel) decode(tokens []string) []string {
	var out []byte
	for _, tok := range tokens {
		out = append(out, tokenBytes(tok)...)
	}
	return []string{decodeLossy(out)}
}

// tokenBytes returns the bytes of a token of a byte-level vocabulary.
func tokenBytes(tok string) []byte {
	if b, ok := alphabetBytes(tok); ok {
		return b
	}
	return []byte(tok)
}

// decode joins runs of byte tokens to characters; a run that is not valid UTF-8 becomes
// one U+FFFD a byte.
func (decByteFallback) decode(tokens []string) []string {
	out := make([]string, 0, len(tokens))
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			if len(run) > 0 {
				out = append(out, string(run))
			}
		} else {
			for range run {
				out = append(out, "\uFFFD")
			}
		}
		run = run[:0]
	}
	for _, tok := range tokens {
		if b, ok := byteToken(tok); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, tok)
	}
	flush()
	return out
}

// byteToken returns the byte of a token such as <0x0A>.
func byteToken(tok string) (byte, bool) {
	if len(tok) != 6 || tok[:3] != "<0x" || tok[5] != '>' {
		return 0, false
	}
	hi, lo := strings.IndexByte(hexDigits, tok[3]), strings.IndexByte(hexDigits, tok[4])
	if hi > 15 { // lower case
		hi -= 6
	}
	if lo > 15 {
		lo -= 6
	}
	return byte(hi<<4 | lo&15), hi >= 0 && lo >= 0
}

const hexDigits = "0123456789ABCDEFabcdef"

func (decFuse) decode(tokens []string) []string { return []string{strings.Join(tokens, "")} }

func (d decReplace) decode(tokens []string) []string {
	for i, tok := range tokens {
		tokens[i] = normReplace(d).apply(tok, true)
	}
	return tokens
}

func (d decStrip) decode(tokens []string) []string {
	for i, tok := range tokens {
		for n := 0; n < d.start; n++ {
			r, w := utf8.DecodeRuneInString(tok)
			if w == 0 || r != d.content {
				break
			}
			tok = tok[w:]
		}
		for n := 0; n < d.stop; n++ {
			r, w := utf8.DecodeLastRuneInString(tok)
			if w == 0 || r != d.content {
				break
			}
			tok = tok[:len(tok)-w]
		}
		tokens[i] = tok
	}
	return tokens
}

func (d decMetaspace) decode(tokens []string) []string {
	for i, tok := range tokens {
		space := " "
		if i == 0 && d.strip {
			space = "" // the reference takes all of the first token's away
		}
		tokens[i] = strings.ReplaceAll(tok, d.replacement, space)
	}
	return tokens
}

// Decode returns the text of ids; with skipSpecial, special tokens are left out. IDs
// that are not in the vocabulary are left out too.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if tok := t.Token(id); tok != "" && !(skipSpecial && t.special[id]) {
			tokens = append(tokens, tok)
		}
	}
	if t.noDecoder {
		return strings.Join(tokens, " ")
	}
	for _, d := range t.decoders {
		tokens = d.decode(tokens)
	}
	return strings.Join(tokens, "")
}

// Stream decodes IDs one by one. It hands out text only at borders of characters.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	bytes       []byte  // byte-level vocabularies: what is not handed out yet
	ids         []int32 // others: the last tokens; those before read have been handed out
	read        int
}

// NewStream returns a decoder for IDs that arrive one by one. The strings it returns
// join to what Decode returns, except that vocabularies with byte fallback are read
// character by character where Decode gives up a whole run of malformed bytes.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{t: t, skipSpecial: skipSpecial}
}

// byteLevel reports whether text is just the bytes of the tokens.
func (s *Stream) byteLevel() bool {
	if len(s.t.decoders) != 1 {
		return false
	}
	_, ok := s.t.decoders[0].(decByteLevel)
	return ok
}

// Next takes the next ID and returns the text that is complete with it, maybe "".
func (s *Stream) Next(id int32) string {
	tok := s.t.Token(id)
	if tok == "" || s.skipSpecial && s.t.special[id] {
		return ""
	}
	if s.byteLevel() {
		s.bytes = append(s.bytes, tokenBytes(tok)...)
		whole := len(s.bytes) - incomplete(s.bytes)
		text := decodeLossy(s.bytes[:whole])
		s.bytes = append(s.bytes[:0], s.bytes[whole:]...)
		return text
	}
	s.ids = append(s.ids, id)
	var run []byte // of bytes the last tokens spell
	for i := len(s.ids) - 1; i >= 0; i-- {
		b, ok := byteToken(s.t.Token(s.ids[i]))
		if !ok {
			break
		}
		run = append(run, b)
	}
	slices.Reverse(run)
	if incomplete(run) > 0 {
		return ""
	}
	return s.step()
}

// Flush returns what is still held back, with U+FFFD for an incomplete character.
func (s *Stream) Flush() string {
	if s.byteLevel() {
		text := decodeLossy(s.bytes)
		s.bytes = nil
		return text
	}
	return s.step()
}

// incomplete returns the number of bytes at the end of b that begin a character without
// ending it.
func incomplete(b []byte) int {
	for k := 1; k < utf8.UTFMax && k <= len(b); k++ {
		if !utf8.FullRune(b[len(b)-k:]) {
			return k
		}
	}
	return 0
}

// step decodes the held tokens together with the handed out ones before them, since
// decoders look at the neighbourhood (a leading space, bytes of a character).
func (s *Stream) step() string {
	before := s.t.Decode(s.ids[:s.read], s.skipSpecial)
	all := s.t.Decode(s.ids, s.skipSpecial)
	if len(all) <= len(before) {
		return ""
	}
	s.ids = append(s.ids[:0], s.ids[s.read:]...)
	s.read = len(s.ids)
	return all[len(commonPrefix(all, before)):]
}

func commonPrefix(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	for i > 0 && i < len(a) && !utf8.RuneStart(a[i]) {
		i--
	}
	return a[:i]
}
