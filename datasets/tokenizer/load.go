package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
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
	if err := t.checkFirst(); err != nil {
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

// checkFirst refuses normalizers that may take the beginning of a text away or lengthen it
// before a Metaspace that asks where the text began: pieces know their place in the
// normalized text only.
func (t *Tokenizer) checkFirst() error {
	for _, p := range t.pre {
		if m, ok := p.(preMetaspace); ok && m.scheme == "first" && movesStart(t.normalize) {
			return &UnsupportedError{jsonFile, "pre_tokenizer", `prepend_scheme "first" after a normalizer that changes a text's beginning`}
		}
	}
	return nil
}

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
