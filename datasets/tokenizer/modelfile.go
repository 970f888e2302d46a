package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

type modelFile struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int32 `json:"vocab"`
	Merges                  mergeList        `json:"merges"`
}

// mergeList is written as "left right" strings or as pairs.
type mergeList [][2]string

// UnmarshalJSON reads either form.
func (l *mergeList) UnmarshalJSON(b []byte) error {
	trimmed := bytes.TrimLeft(b, "[ \t\r\n")
	if len(b)-len(trimmed) > 0 && bytes.Count(b[:len(b)-len(trimmed)], []byte("[")) >= 2 {
		var pairs [][]string
		if err := json.Unmarshal(b, &pairs); err != nil {
			return err
		}
		*l = make(mergeList, len(pairs))
		for i, p := range pairs {
			if len(p) != 2 {
				return fmt.Errorf("merge %d has %d parts, not 2", i, len(p))
			}
			(*l)[i] = [2]string{p[0], p[1]}
		}
		return nil
	}
	if string(b) == "null" {
		return nil // as if it were not there
	}
	var lines []string
	if err := json.Unmarshal(b, &lines); err != nil {
		return err
	}
	*l = make(mergeList, len(lines))
	for i, line := range lines {
		left, right, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(right, " ") {
			return fmt.Errorf("merge %d (%q) is not two tokens with a space between", i, line)
		}
		(*l)[i] = [2]string{left, right}
	}
	return nil
}

// idLimit allows gaps between IDs, as between a vocabulary and added tokens.
func idLimit(tokens int) int { return 4*tokens + 1<<16 }

func (t *Tokenizer) parseModel(raw json.RawMessage) error {
	fail := func(path string, err error) error { return &FormatError{jsonFile, path, err} }
	if absent(raw) {
		return fail("model", errors.New("missing"))
	}
	var head struct{ Type string }
	if err := json.Unmarshal(raw, &head); err != nil {
		return fail("model", err)
	}
	if head.Type != "BPE" && head.Type != "" {
		return &UnsupportedError{jsonFile, "model", fmt.Sprintf("type %q", head.Type)}
	}
	var f modelFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return fail("model", err)
	}
	refuse := func(field, value string) error {
		return &UnsupportedError{jsonFile, "model." + field, value}
	}
	switch {
	case len(f.Vocab) == 0:
		return fail("model.vocab", errors.New("missing or empty"))
	case f.Merges == nil:
		return fail("model.merges", errors.New("missing: a byte-pair encoding needs its merge rules"))
	case len(f.Merges) == 0 && !f.IgnoreMerges && f.joined() != "":
		return fail("model.merges", fmt.Errorf("there are none, yet the vocabulary has %q, which only merges make; the file has lost them", f.joined()))
	case f.Dropout != nil && *f.Dropout != 0:
		return refuse("dropout", fmt.Sprint(*f.Dropout))
	case f.ContinuingSubwordPrefix != nil && *f.ContinuingSubwordPrefix != "":
		return refuse("continuing_subword_prefix", fmt.Sprintf("%q", *f.ContinuingSubwordPrefix))
	case f.EndOfWordSuffix != nil && *f.EndOfWordSuffix != "":
		return refuse("end_of_word_suffix", fmt.Sprintf("%q", *f.EndOfWordSuffix))
	}
	for tok, id := range f.Vocab {
		if err := t.setToken(tok, id, idLimit(len(f.Vocab))); err != nil {
			return fail("model.vocab", err)
		}
	}
	m := &t.model
	m.unk, m.fuseUnk, m.fallback = -1, f.FuseUnk, f.ByteFallback && !m.byteLevel
	if f.UnkToken != nil {
		id, ok := f.Vocab[*f.UnkToken]
		if !ok {
			return fail("model.unk_token", fmt.Errorf("%q is not in the vocabulary", *f.UnkToken))
		}
		m.unk = id
	}
	m.bpe = newBPE(len(f.Merges))
	for rank, pair := range f.Merges {
		left, ok1 := f.Vocab[pair[0]]
		right, ok2 := f.Vocab[pair[1]]
		id, ok3 := f.Vocab[pair[0]+pair[1]]
		if !ok1 || !ok2 || !ok3 {
			return fail(fmt.Sprintf("model.merges[%d]", rank), fmt.Errorf("%q + %q: the parts and the result must be in the vocabulary", pair[0], pair[1]))
		}
		m.bpe.add(left, right, id, rank)
	}
	m.setSymbols(f.Vocab)
	if f.IgnoreMerges {
		m.setWhole(f.Vocab)
	} else if !m.byteLevel && (m.fallback || m.unk >= 0) {
		// Without either, unknown characters vanish and their neighbours become adjacent.
		m.setCuts(f.Vocab, f.Merges)
	}
	return nil
}

// joined returns a token of several characters that is neither a byte nor written like a control token, "" if there is none.
func (f *modelFile) joined() string {
	for _, tok := range slices.Sorted(maps.Keys(f.Vocab)) {
		if utf8.RuneCountInString(tok) > 1 && !strings.HasPrefix(tok, "<") && !strings.HasPrefix(tok, "[") {
			return tok
		}
	}
	return ""
}

// setSymbols finds the tokens of single bytes or characters.
func (m *model) setSymbols(vocab map[string]int32) {
	for i := range m.byteID {
		tok := fmt.Sprintf("<0x%02X>", i)
		if m.byteLevel {
			tok = string(byteAlphabet[i])
		}
		m.byteID[i] = -1
		if id, ok := vocab[tok]; ok {
			m.byteID[i] = id
		}
	}
	for i := range m.ascii {
		m.ascii[i] = -1
	}
	m.charID = map[rune]int32{}
	for tok, id := range vocab {
		if r, w := utf8.DecodeRuneInString(tok); w == len(tok) && w > 0 {
			m.charID[r] = id
			if r < utf8.RuneSelf {
				m.ascii[r] = id
			}
		}
	}
}

func (m *model) setWhole(vocab map[string]int32) {
	m.whole = make(map[string]int32, len(vocab))
	for tok, id := range vocab {
		if !m.byteLevel {
			m.whole[tok] = id
		} else if b, ok := alphabetBytes(tok); ok {
			m.whole[string(b)] = id
		}
	}
}

// metaspace is the character SentencePiece writes for a space.
const metaspace = "▁"

// setCuts finds out where merges never reach over the beginning of a word.
func (m *model) setCuts(vocab map[string]int32, merges mergeList) {
	if _, ok := vocab[metaspace]; !ok {
		return
	}
	m.glued = map[rune]bool{}
	for _, pair := range merges {
		if _, isByte := byteToken(pair[0]); isByte {
			return // merges of bytes, whose spelling says nothing about the text
		}
		tok := pair[0] + pair[1]
		for i := 1; i < len(tok); i++ {
			if strings.HasPrefix(tok[i:], metaspace) {
				r, _ := utf8.DecodeLastRuneInString(tok[:i])
				m.glued[r] = true
			}
		}
	}
	m.cutRune = metaspace
}
