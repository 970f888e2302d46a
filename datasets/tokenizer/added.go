package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is found in the text before the model sees it.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// addedTokens are looked for in the raw text, or, those flagged so, in normalized text.
type addedTokens struct{ raw, normalized matcher }

// matcher finds the leftmost-longest occurrences of a set of strings by a trie of bytes.
type matcher struct {
	tokens []addedToken
	first  [256]bool
	only   int // the single possible first byte, or -1
	next   map[uint32]int32
	token  []int32 // by node: index into tokens, or -1
}

func (m *matcher) empty() bool { return len(m.tokens) == 0 }

// add makes m find text as the token a.
func (m *matcher) add(text string, a addedToken) {
	if text == "" {
		return
	}
	if m.next == nil {
		m.next, m.token, m.only = map[uint32]int32{}, []int32{-1}, int(text[0])
	}
	if int(text[0]) != m.only {
		m.only = -1
	}
	m.first[text[0]] = true
	node := int32(0)
	for i := range len(text) {
		key := uint32(node)<<8 | uint32(text[i])
		child, ok := m.next[key]
		if !ok {
			child = int32(len(m.token))
			m.next[key] = child
			m.token = append(m.token, -1)
		}
		node = child
	}
	if m.token[node] < 0 { // of two equal ones the first wins
		m.token[node] = int32(len(m.tokens))
		m.tokens = append(m.tokens, a)
	}
}

// find returns the first, and there the longest, occurrence in s at or after i.
func (m *matcher) find(s string, i int) (start, end int, a *addedToken) {
	for ; i < len(s); i++ {
		if m.only >= 0 {
			j := strings.IndexByte(s[i:], byte(m.only))
			if j < 0 {
				break
			}
			i += j
		} else if !m.first[s[i]] {
			continue
		}
		if end, a := m.longest(s, i); a != nil {
			return i, end, a
		}
	}
	return 0, 0, nil
}

// longest returns the longest token at i and its end.
func (m *matcher) longest(s string, i int) (end int, a *addedToken) {
	node, last := int32(0), int32(-1)
	for k := i; k < len(s); k++ {
		child, ok := m.next[uint32(node)<<8|uint32(s[k])]
		if !ok {
			break
		}
		node = child
		if m.token[node] >= 0 {
			last, end = m.token[node], k+1
		}
	}
	if last < 0 {
		return 0, nil
	}
	return end, &m.tokens[last]
}

// split calls text for the parts of s between added tokens, with their place in s, and
// id for the tokens, in order.
func (m *matcher) split(t *Tokenizer, s string, which recognise, text func(string, int), id func(int32)) {
	if m.empty() {
		if s != "" {
			text(s, 0)
		}
		return
	}
	done := 0
	for i := 0; ; {
		start, end, a := m.find(s, i)
		if a == nil {
			break
		}
		i = end
		if which == exceptControl && t.control[a.ID] {
			continue
		}
		if a.SingleWord && (endsInWord(s[:start]) || beginsWithWord(s[end:])) {
			continue
		}
		if a.LStrip {
			start = max(done, len(strings.TrimRightFunc(s[:start], unicode.IsSpace)))
		}
		if a.RStrip {
			end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
		}
		if done < start {
			text(s[done:start], done)
		}
		if start < end { // else the white space that the token before took in was all of it
			id(a.ID)
		}
		done = end // even where the token before took in more: the reference reads that again
	}
	if done < len(s) {
		text(s[done:], done)
	}
}

// Span is a part of a text: an added token, or, with ID -1, the text between them.
type Span struct {
	Text string
	ID   int32
}

// SplitAdded finds the added tokens written out in text that is trusted to contain them,
// such as a chat template's own. Tokens that strip white space around them take it away.
func (t *Tokenizer) SplitAdded(text string) (spans []Span) {
	t.added.raw.split(t, text, allAdded,
		func(part string, _ int) { spans = append(spans, Span{part, -1}) },
		func(id int32) { spans = append(spans, Span{t.tokens[id], id}) })
	return spans
}

func endsInWord(s string) bool {
	r, w := utf8.DecodeLastRuneInString(s)
	return w > 0 && isWord(r)
}

func beginsWithWord(s string) bool {
	r, w := utf8.DecodeRuneInString(s)
	return w > 0 && isWord(r)
}

// isWord is \w.
func isWord(r rune) bool { return wordTables.has(r) || r == '\u200c' || r == '\u200d' }
