package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"unicode/utf8"
)

// UnsupportedError says that a tokenizer file asks for something this package does not
// reproduce exactly.
type UnsupportedError struct {
	File string // the file, such as tokenizer.json
	Path string // where in it, such as pre_tokenizer.pretokenizers[0]
	What string // such as: type "BertPreTokenizer"
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: %s: %s is not supported; convert the tokenizer to one with a supported component", e.File, e.Path, e.What)
}

// FormatError says that a tokenizer file is malformed.
type FormatError struct {
	File string
	Path string
	Err  error
}

func (e *FormatError) Error() string { return fmt.Sprintf("%s: %s: %v", e.File, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }

const (
	jsonFile   = "tokenizer.json"
	configFile = "tokenizer_config.json"
	spFile     = "tokenizer.model"
	jinjaFile  = "chat_template.jinja"
)

// Load reads the tokenizer of a Hugging Face model directory: tokenizer.json or else
// tokenizer.model, with tokenizer_config.json and chat_template.jinja if present.
func Load(dir string) (*Tokenizer, error) {
	t, err := FromFS(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("tokenizer in %s: %w", dir, err)
	}
	return t, nil
}

// FromFS is Load for a file system.
func FromFS(fsys fs.FS) (*Tokenizer, error) {
	config, err := readOptional(fsys, configFile)
	if err != nil {
		return nil, err
	}
	jinja, err := readOptional(fsys, jinjaFile)
	if err != nil {
		return nil, err
	}
	var t *Tokenizer
	data, err := readOptional(fsys, jsonFile)
	switch {
	case err != nil:
		return nil, err
	case data != nil:
		t, err = Parse(data, config)
	default:
		if data, err = readOptional(fsys, spFile); err != nil {
			return nil, err
		}
		if data == nil {
			return nil, fmt.Errorf("neither %s nor %s found: %w", jsonFile, spFile, fs.ErrNotExist)
		}
		t, err = ParseSentencePiece(data, config)
	}
	if err != nil {
		return nil, err
	}
	if jinja != nil {
		t.template = string(jinja)
	}
	return t, nil
}

func readOptional(fsys fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// tokenizerFile is the outline of tokenizer.json.
type tokenizerFile struct {
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

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

// Parse reads tokenizer.json and, if not nil, tokenizer_config.json.
func Parse(tokenizerJSON, configJSON []byte) (*Tokenizer, error) {
	var file tokenizerFile
	if err := json.Unmarshal(tokenizerJSON, &file); err != nil {
		return nil, &FormatError{jsonFile, "document", err}
	}
	t := newTokenizer()
	var err error
	if t.normalize, err = parseNormalizer(file.Normalizer, "normalizer"); err != nil {
		return nil, err
	}
	if t.pre, err = parsePreTokenizer(file.PreTokenizer, "pre_tokenizer", nil); err != nil {
		return nil, err
	}
	if err := t.checkByteLevel(); err != nil {
		return nil, err
	}
	if err := t.parseModel(file.Model); err != nil {
		return nil, err
	}
	if err := t.addTokens(file.AddedTokens); err != nil {
		return nil, err
	}
	if err := t.parsePostProcessor(file.PostProcessor, "post_processor"); err != nil {
		return nil, err
	}
	t.noDecoder = absent(file.Decoder)
	if t.decoders, err = parseDecoder(file.Decoder, "decoder", nil); err != nil {
		return nil, err
	}
	if err := t.applyConfig(configJSON); err != nil {
		return nil, err
	}
	t.planChunks()
	return t, nil
}

func newTokenizer() *Tokenizer {
	return &Tokenizer{
		ids: map[string]int32{}, control: map[int32]bool{}, special: map[int32]bool{},
		named: map[string]string{}, bos: -1, eos: -1,
		encoders: make(chan *encoder, runtime.GOMAXPROCS(0)),
	}
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// checkByteLevel sees to it that the byte alphabet, if any, comes last and once.
func (t *Tokenizer) checkByteLevel() error {
	for i, p := range t.pre {
		b, ok := p.(preByteLevel)
		if !ok {
			continue
		}
		if i != len(t.pre)-1 {
			return &UnsupportedError{jsonFile, "pre_tokenizer", "a step after ByteLevel"}
		}
		t.model.byteLevel = true
		scan := scanner(nil)
		if b.pattern {
			scan = scanGPT2
		}
		if known, ok := t.pre[0].(preScan); ok && i == 1 && !b.pattern {
			scan = known.scan
		} else if i > 0 {
			scan = nil
		}
		if !b.addPrefixSpace {
			t.scan = scan
		}
	}
	return nil
}

// setToken records a token, growing the table. IDs are bounded so that a malformed file
// cannot ask for any amount of memory.
func (t *Tokenizer) setToken(tok string, id int32, limit int) error {
	if id < 0 || int(id) >= limit {
		return fmt.Errorf("token %q has ID %d, outside 0…%d", tok, id, limit-1)
	}
	for int(id) >= len(t.tokens) {
		t.tokens = append(t.tokens, "")
	}
	t.tokens[id] = tok
	t.ids[tok] = id
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

// addTokens registers the added tokens; those flagged normalized are looked for in their
// normalized spelling.
func (t *Tokenizer) addTokens(list []addedToken) error {
	limit := idLimit(len(t.tokens) + len(list))
	for i, a := range list {
		if a.Content == "" {
			continue
		}
		if known, ok := t.ids[a.Content]; ok {
			a.ID = known // the vocabulary has the say
		}
		if err := t.setToken(a.Content, a.ID, limit); err != nil {
			return &FormatError{jsonFile, fmt.Sprintf("added_tokens[%d]", i), err}
		}
		if a.Special {
			t.special[a.ID], t.control[a.ID] = true, true
		}
		if a.Normalized && t.normalize != nil {
			t.added.normalized.add(t.normalize.apply(a.Content, true), a)
		} else if a.Normalized {
			t.added.normalized.add(a.Content, a)
		} else {
			t.added.raw.add(a.Content, a)
		}
	}
	return nil
}

// planChunks decides whether long texts may be normalized in chunks that end before a
// space between ASCII letters.
func (t *Tokenizer) planChunks() {
	if t.normalize != nil && !t.normalize.byChunk() {
		return
	}
	for _, a := range t.added.normalized.tokens {
		if strings.ContainsAny(strings.Trim(a.Content, " "+metaspace), " "+metaspace) {
			return
		}
	}
	if t.scan != nil {
		t.chunked = true
		return
	}
	switch len(t.pre) {
	case 0:
		t.chunked = t.cutsAtSpaces()
	case 1:
		switch p := t.pre[0].(type) {
		case preByteLevel:
			t.chunked = p.pattern
		case preMetaspace:
			t.chunked = p.splits || t.cutsAtSpaces()
		}
	case 2:
		_, scan := t.pre[0].(preScan)
		t.chunked = scan && t.model.byteLevel
	}
}

// cutsAtSpaces reports whether spaces have become cutRune when the model sees the text,
// and no merge joins a letter to one.
func (t *Tokenizer) cutsAtSpaces() bool {
	if t.model.cutRune == "" {
		return false
	}
	for r := range t.model.glued {
		if 'a' <= r|0x20 && r|0x20 <= 'z' {
			return false
		}
	}
	probe := "a b"
	if t.normalize != nil {
		probe = t.normalize.apply(probe, false)
	}
	if len(t.pre) == 1 {
		probe = strings.ReplaceAll(probe, " ", metaspace)
	}
	return probe == "a"+metaspace+"b"
}
