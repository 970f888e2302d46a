package tokenizer

import (
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
		if b, ok := alphabetBytes(tok); ok {
			out = append(out, b...)
		} else {
			out = append(out, tok...)
		}
	}
	return []string{decodeLossy(out)}
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
	ids         []int32 // the last tokens: those before read have been handed out
	read        int
}

// maxHeld bounds how many tokens of a character that never ends are kept back.
const maxHeld = 16

// NewStream returns a decoder for IDs that arrive one by one. For valid UTF-8 the
// strings it returns join to what Decode returns.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{t: t, skipSpecial: skipSpecial}
}

// Next takes the next ID and returns the text that is complete with it, maybe "".
func (s *Stream) Next(id int32) string {
	if s.skipSpecial && s.t.special[id] {
		return ""
	}
	s.ids = append(s.ids, id)
	return s.step(len(s.ids)-s.read > maxHeld)
}

// Flush returns what is still held back, with U+FFFD for an incomplete character.
func (s *Stream) Flush() string { return s.step(true) }

// step decodes the held tokens together with the handed out ones before them, since
// decoders look at the neighbourhood (a leading space, bytes of a character).
func (s *Stream) step(force bool) string {
	before := s.t.Decode(s.ids[:s.read], s.skipSpecial)
	all := s.t.Decode(s.ids, s.skipSpecial)
	if len(all) <= len(before) || !force && strings.HasSuffix(all, "\uFFFD") {
		return ""
	}
	s.ids = append(s.ids[:0], s.ids[s.read:]...)
	s.read = len(s.ids)
	if !strings.HasPrefix(all, before) { // malformed bytes were read anew
		return strings.TrimPrefix(all, commonPrefix(all, before))
	}
	return all[len(before):]
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
