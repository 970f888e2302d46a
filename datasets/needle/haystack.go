package needle

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tokenizer is the tokenizer of the model under test. Encode adds no special
// tokens.
type Tokenizer interface {
	Encode(text string) []int32
	Decode(ids []int32) string
}

// ErrNoText is returned when a haystack directory holds no text.
var ErrNoText = errors.New("the haystack has no *.txt files with text")

// Haystack is the texts of a directory as tokens, long enough for the longest
// cell. It is read-only after Load and safe for concurrent use if its tokenizer is.
type Haystack struct {
	tok Tokenizer
	ids []int32
}

// chunkBytes bounds how much text is encoded at once. A chunk ends at a line
// break, which no usual vocabulary merges with what follows.
const chunkBytes = 1 << 20

// Load reads the *.txt files of fsys, sorted by path, and repeats them until there
// are length tokens. Memory holds the tokens and one file.
func Load(fsys fs.FS, tok Tokenizer, length int) (*Haystack, error) {
	var names []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && path.Ext(name) == ".txt" {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("haystack: %w", err)
	}
	slices.Sort(names)
	h := &Haystack{tok: tok}
	for _, name := range names {
		if err := h.read(fsys, name, length); err != nil {
			return nil, fmt.Errorf("haystack: %w", err)
		}
	}
	if len(h.ids) == 0 {
		return nil, fmt.Errorf("haystack: %w", ErrNoText)
	}
	once := h.ids
	for len(h.ids) < length {
		h.ids = append(h.ids, once[:min(len(once), length-len(h.ids))]...)
	}
	h.ids = h.ids[:length]
	return h, nil
}

func (h *Haystack) read(fsys fs.FS, name string, length int) error {
	if len(h.ids) >= length {
		return nil
	}
	raw, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	if !utf8.Valid(raw) {
		return fmt.Errorf("%s is not UTF-8 text", name)
	}
	text := strings.TrimSpace(string(raw))
	for text != "" && len(h.ids) < length {
		chunk := text
		if len(text) > chunkBytes {
			if end := strings.IndexByte(text[chunkBytes:], '\n'); end >= 0 {
				chunk = text[:chunkBytes+end+1]
			}
		}
		text = text[len(chunk):]
		if text == "" {
			chunk += "\n"
		}
		h.ids = append(h.ids, h.tok.Encode(chunk)...)
	}
	return nil
}

// Prompt is one cell made concrete.
type Prompt struct {
	Cell
	// Context is the haystack with the needle in it.
	Context string `json:"context"`
	Needle  string `json:"needle"`
	// ActualDepth is the needle's place as a fraction of the haystack's tokens.
	ActualDepth float64 `json:"actual_depth"`
	// ActualTokens is the number of tokens of Context, encoded as a whole.
	ActualTokens int `json:"actual_tokens"`
}

// Message is the user message: context, blank line, question.
func (p Prompt) Message(t Test) string { return p.Context + "\n\n" + t.Question }

// ErrNoSentenceEnd is returned when a haystack offers no place for the needle.
var ErrNoSentenceEnd = errors.New("the haystack has no sentence end")

// Place hides the needle. The context has about c.Length tokens, the needle
// counted; the text after the needle ends where its tokens do, within a sentence if need be.
// Depths 0 and 1 put the needle before and after everything.
func (h *Haystack) Place(t Test, c Cell) (Prompt, error) {
	if err := t.Validate(); err != nil {
		return Prompt{}, err
	}
	if err := (Grid{Lengths: []int{c.Length}, Depths: []float64{c.Depth}}).Validate(); err != nil {
		return Prompt{}, err
	}
	insert := "\n" + strings.TrimSpace(t.Needle) + "\n"
	n := c.Length - len(h.tok.Encode(insert))
	switch {
	case n <= 0:
		return Prompt{}, fmt.Errorf("needle: a context of %d tokens has no room for the needle", c.Length)
	case n > len(h.ids):
		return Prompt{}, fmt.Errorf("needle: the haystack was loaded with %d tokens, cell %s needs %d", len(h.ids), c.ID(), n)
	}
	ids := h.ids[:n]
	// A cut inside a character leaves the tokens of its beginning, which are no text.
	for range utf8.UTFMax - 1 {
		if _, whole := h.wholeFrom(ids); whole || len(ids) < 2 {
			break
		}
		ids = ids[:len(ids)-1]
	}
	n = len(ids)
	at, err := h.sentenceEnd(ids, int(c.Depth*float64(n)+0.5))
	if err != nil {
		return Prompt{}, fmt.Errorf("needle: cell %s: %w", c.ID(), err)
	}
	context := h.tok.Decode(ids[:at]) + insert + h.tok.Decode(ids[at:])
	return Prompt{
		Cell:         c,
		Context:      context,
		Needle:       t.Needle,
		ActualDepth:  float64(at) / float64(n),
		ActualTokens: len(h.tok.Encode(context)),
	}, nil
}

// sentenceEnd returns the number of tokens before the sentence end nearest to
// want, the earlier of two as near. The haystack's own ends count as sentence ends
// when they are asked for.
func (h *Haystack) sentenceEnd(ids []int32, want int) (int, error) {
	if want <= 0 || want >= len(ids) {
		return max(0, min(want, len(ids))), nil
	}
	for away := 0; away < len(ids); away++ {
		for _, at := range [2]int{want - away, want + away} {
			if 0 < at && at < len(ids) && h.endsSentence(ids, at) {
				return at, nil
			}
		}
	}
	return 0, ErrNoSentenceEnd
}

// window is how many tokens around a place are decoded to judge it.
const window = 8

// endsSentence reports whether a sentence ends between tokens at−1 and at: the text before ends in a full stop, question or exclamation
// mark, quotes and brackets after it included, and the text after begins anew, with space or in a script without spaces. A full stop
// after an abbreviation or an initial, or before a small letter, ends none.
func (h *Haystack) endsSentence(ids []int32, at int) bool {
	last := h.tok.Decode(ids[at-1 : at])
	// Decoding more is slow. A character of several byte tokens shows as U+FFFD here.
	if !strings.ContainsAny(last, ".!?。！？…\"'”’)」』\n\ufffd") {
		return false
	}
	before, after, ok := h.around(ids, at)
	if !ok {
		return false
	}
	if strings.HasSuffix(strings.TrimRight(before, " "), "\n\n") && strings.TrimSpace(after) != "" {
		return true // a paragraph ends, with whatever sign
	}
	text := strings.TrimRight(before, "\"'”’)」』 \n")
	mark, _ := utf8.DecodeLastRuneInString(text)
	next, _ := utf8.DecodeRuneInString(after)
	switch mark {
	case '。', '！', '？':
		return !strings.ContainsRune("”’」』", next)
	case '.', '!', '?', '…':
		if !unicode.IsSpace(next) && !strings.ContainsAny(before[len(text):], " \n") {
			return false
		}
		if following, _ := utf8.DecodeRuneInString(strings.TrimLeft(after, " \n\"'“‘(")); unicode.IsLower(following) {
			return false
		}
		return mark != '.' || !abbreviated(text)
	}
	return false
}

// around is the text on both sides of a place, by what more of it decodes to: a tokenizer in SentencePiece's manner drops the space
// before the first token it decodes. ok is false within a character of several tokens.
func (h *Haystack) around(ids []int32, at int) (before, after string, ok bool) {
	from, ok := h.wholeFrom(ids[:at])
	if !ok {
		return "", "", false
	}
	end := min(len(ids), at+window)
	for range utf8.UTFMax {
		before, after = h.tok.Decode(ids[from:at]), h.tok.Decode(ids[from:end])
		if after, ok = strings.CutPrefix(after, before); ok && !strings.ContainsRune(after, utf8.RuneError) {
			return before, after, true
		}
		if end--; end <= at {
			break
		}
	}
	return "", "", false
}

// wholeFrom is where about a window of tokens begins that decodes to the last characters of ids and no part of one. Decoders with byte
// tokens spoil a whole run of them for one that is cut: both ends must be right. ok is false when ids end within a character.
func (h *Haystack) wholeFrom(ids []int32) (from int, ok bool) {
	from = max(0, len(ids)-window)
	for range utf8.UTFMax {
		if !strings.ContainsRune(h.tok.Decode(ids[from:]), utf8.RuneError) {
			return from, true
		}
		if from == 0 {
			break
		}
		from--
	}
	return from, false
}

// abbreviations end in a full stop within sentences of English, the language of the paper's haystack. Where one ends a sentence, that
// place is passed over and the next one taken.
var abbreviations = map[string]bool{
	"mr": true, "mrs": true, "ms": true, "dr": true, "prof": true, "st": true, "sr": true, "jr": true, "gen": true, "col": true, "capt": true,
	"lt": true, "sgt": true, "rev": true, "hon": true, "gov": true, "sen": true, "rep": true, "pres": true, "mt": true, "ft": true, "no": true,
	"nos": true, "vol": true, "fig": true, "figs": true, "eq": true, "ch": true, "sec": true, "pp": true, "vs": true, "cf": true, "e.g": true,
	"i.e": true, "viz": true, "approx": true, "inc": true, "ltd": true, "co": true, "corp": true, "dept": true, "est": true, "jan": true, "feb": true,
	"mar": true, "apr": true, "jun": true, "jul": true, "aug": true, "sep": true, "sept": true, "oct": true, "nov": true, "dec": true,
}

// abbreviated reports whether the full stop at the end of text belongs to its last word: "Mr.", "J.", "U.S.".
func abbreviated(text string) bool {
	text = strings.TrimSuffix(text, ".")
	word := text[strings.LastIndexFunc(text, func(r rune) bool { return r != '.' && !unicode.IsLetter(r) })+1:]
	if abbreviations[strings.ToLower(word)] && word != "no" {
		return true
	}
	initial := word[strings.LastIndexByte(word, '.')+1:]
	first, size := utf8.DecodeRuneInString(initial)
	return size > 0 && size == len(initial) && unicode.IsUpper(first) && first != 'I'
}
