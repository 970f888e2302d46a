package tokenizer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Piece types of SentencePiece.
const (
	pieceNormal      = 1
	pieceUnknown     = 2
	pieceControl     = 3
	pieceUserDefined = 4
	pieceUnused      = 5
	pieceByte        = 6
)

// modelBPE is the model type this package reads.
const modelBPE = 2

// spPiece is one entry of a SentencePiece vocabulary; its ID is its index.
type spPiece struct {
	text  string
	score float32
	kind  uint64
}

// spModel is what of a SentencePiece ModelProto matters for encoding and decoding, with
// the defaults of its schema.
type spModel struct {
	pieces     []spPiece
	modelType  uint64
	asSuffix   bool
	fallback   bool
	unkSurface string
	bos, eos   int32

	charsmap    []byte
	dummyPrefix bool
	removeExtra bool
	escape      bool
	denormalize bool
}

// ParseSentencePiece reads a SentencePiece .model file of type BPE and, if not nil,
// tokenizer_config.json. Control symbols written out in a text are text. BOS is added
// with special tokens unless the configuration says add_bos_token is false. With
// ChatGLM's tokenizer class, its tokens after the vocabulary ([gMASK], sop, <|user|>, …)
// are added, and texts begin with [gMASK] sop.
func ParseSentencePiece(model, configJSON []byte) (*Tokenizer, error) {
	sp, err := parseModelProto(model)
	if err != nil {
		return nil, &FormatError{spFile, "document", err}
	}
	refuse := func(path, what string) error { return &UnsupportedError{spFile, path, what} }
	switch {
	case len(sp.pieces) == 0:
		return nil, &FormatError{spFile, "pieces", errors.New("none")}
	case sp.modelType != modelBPE:
		names := map[uint64]string{1: "UNIGRAM", 3: "WORD", 4: "CHAR"}
		return nil, refuse("trainer_spec.model_type", cmp.Or(names[sp.modelType], fmt.Sprint(sp.modelType)))
	case sp.asSuffix:
		return nil, refuse("trainer_spec.treat_whitespace_as_suffix", "true")
	case !sp.escape:
		return nil, refuse("normalizer_spec.escape_whitespaces", "false")
	case sp.denormalize:
		return nil, refuse("denormalizer_spec", "a denormalizer")
	}
	t := newTokenizer()
	t.sentencePiece = true
	if err := t.setPieces(sp); err != nil {
		return nil, err
	}
	norm := &spNormalizer{dummyPrefix: sp.dummyPrefix, removeExtra: sp.removeExtra}
	if norm.userDefined = &t.added.normalized; norm.userDefined.empty() {
		norm.userDefined = nil
	}
	if norm.charsmap, err = parseCharsmap(sp.charsmap); err != nil {
		return nil, &FormatError{spFile, "normalizer_spec.precompiled_charsmap", err}
	}
	t.normalize = norm
	t.decoders = []decoder{decSentencePiece{
		unknown: t.tokens[t.model.unk], surface: sp.unkSurface,
		strip: sp.dummyPrefix || sp.removeExtra, stripAll: sp.removeExtra,
	}}
	if err := t.spSpecial(sp, configJSON); err != nil {
		return nil, err
	}
	t.planChunks()
	return t, nil
}

// setPieces builds vocabulary and merges. Two symbols merge when their texts joined are
// a piece; the best score goes first.
func (t *Tokenizer) setPieces(sp *spModel) error {
	m := &t.model
	m.unk, m.fallback, m.fuseUnk = -1, sp.fallback, true
	symbols := map[string]int32{}
	for i, p := range sp.pieces {
		id := int32(i)
		t.tokens = append(t.tokens, p.text)
		t.ids[p.text] = id
		switch p.kind {
		case pieceNormal:
			symbols[p.text] = id
		case pieceUserDefined:
			symbols[p.text] = id
			t.added.normalized.add(p.text, addedToken{ID: id, Content: p.text})
		case pieceUnknown:
			m.unk = id
		case pieceControl:
			t.special[id], t.control[id] = true, true
		case pieceByte:
		case pieceUnused:
			return &UnsupportedError{spFile, fmt.Sprintf("pieces[%d]", i), "type UNUSED"}
		default:
			return &UnsupportedError{spFile, fmt.Sprintf("pieces[%d]", i), fmt.Sprintf("type %d", p.kind)}
		}
	}
	if m.unk < 0 {
		return &FormatError{spFile, "pieces", errors.New("no unknown piece")}
	}
	m.internal = int32(len(sp.pieces))
	var merges mergeList
	for _, p := range sp.pieces {
		if p.kind != pieceNormal && p.kind != pieceUserDefined {
			continue
		}
		for at, r := range p.text { // characters that are no pieces themselves
			if c := string(r); at > 0 || len(c) < len(p.text) {
				if _, ok := symbols[c]; !ok {
					symbols[c] = m.internal + int32(len(m.hidden))
					m.hidden = append(m.hidden, c)
				}
			}
		}
	}
	type scored struct {
		left, right, id int32
		score           float32
	}
	var pairs []scored
	for i, p := range sp.pieces {
		if p.kind != pieceNormal && p.kind != pieceUserDefined {
			continue
		}
		for at := range p.text {
			left, ok1 := symbols[p.text[:at]]
			right, ok2 := symbols[p.text[at:]]
			if at > 0 && ok1 && ok2 {
				pairs = append(pairs, scored{left, right, int32(i), p.score})
				merges = append(merges, [2]string{p.text[:at], p.text[at:]})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	m.bpe = newBPE(len(pairs))
	rank := 0
	for i, p := range pairs {
		if i > 0 && p.score != pairs[i-1].score {
			rank++ // pieces of equal score merge from left to right
		}
		m.bpe.add(p.left, p.right, p.id, rank)
	}
	m.setSymbols(symbols)
	for i := range m.byteID {
		m.byteID[i] = -1
	}
	for i, p := range sp.pieces {
		if b, ok := byteToken(p.text); ok && p.kind == pieceByte {
			m.byteID[b] = int32(i)
		}
	}
	m.setCuts(symbols, merges)
	return nil
}

// spSpecial sets BOS, EOS and what the configuration adds.
func (t *Tokenizer) spSpecial(sp *spModel, configJSON []byte) error {
	name := func(id int32) string {
		if id < 0 || int(id) >= len(sp.pieces) {
			return ""
		}
		return sp.pieces[id].text
	}
	var config struct {
		Class  string `json:"tokenizer_class"`
		AddBOS *bool  `json:"add_bos_token"`
		AddEOS bool   `json:"add_eos_token"`
	}
	if configJSON != nil {
		if err := json.Unmarshal(configJSON, &config); err != nil {
			return &FormatError{configFile, "document", err}
		}
	}
	for role, id := range map[string]int32{"bos_token": sp.bos, "eos_token": sp.eos, "unk_token": t.model.unk} {
		if s := name(id); s != "" {
			t.named[role] = s
		}
	}
	t.bos, t.eos = -1, -1
	if name(sp.bos) != "" {
		t.bos = sp.bos
	}
	if name(sp.eos) != "" {
		t.eos = sp.eos
	}
	chatGLM := config.Class == "ChatGLMTokenizer"
	if chatGLM {
		var list []addedToken
		for i, s := range []string{"[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"} {
			list = append(list, addedToken{ID: int32(len(sp.pieces) + i), Content: s, Special: true})
		}
		for _, a := range list { // known by ID only: in a text they are text
			if err := t.setToken(a.Content, a.ID, math.MaxInt32); err != nil {
				return &FormatError{spFile, "pieces", err}
			}
			t.special[a.ID], t.control[a.ID] = true, true
		}
	}
	if err := t.applyConfig(configJSON); err != nil {
		return err
	}
	switch {
	case chatGLM:
		t.prefix = []int32{t.ids["[gMASK]"], t.ids["sop"]}
	case t.bos >= 0 && (config.AddBOS == nil || *config.AddBOS):
		t.prefix = []int32{t.bos}
	}
	if t.eos >= 0 && config.AddEOS {
		t.suffix = []int32{t.eos}
	}
	return nil
}

// decSentencePiece joins pieces to text as SentencePiece does.
type decSentencePiece struct {
	unknown, surface string
	strip, stripAll  bool // white space at the start: one, all
}

func (d decSentencePiece) decode(tokens []string) []string {
	var out strings.Builder
	var run []byte
	flush := func() {
		for len(run) > 0 {
			r, w := utf8.DecodeRune(run)
			out.WriteRune(r)
			run = run[w:]
		}
	}
	stripping := d.strip
	for _, tok := range tokens {
		if b, ok := byteToken(tok); ok {
			run = append(run, b)
			continue
		}
		flush()
		if tok == d.unknown {
			out.WriteString(d.surface)
			continue
		}
		if stripping && out.Len() == 0 {
			cut, had := strings.CutPrefix(tok, metaspace)
			tok = cut
			stripping = !had || d.stripAll
		}
		out.WriteString(strings.ReplaceAll(tok, metaspace, " "))
	}
	flush()
	return []string{out.String()}
}

// parseModelProto reads a serialized ModelProto.
func parseModelProto(data []byte) (*spModel, error) {
	m := &spModel{modelType: 1, unkSurface: " \u2047 ", bos: 1, eos: 2, dummyPrefix: true, removeExtra: true, escape: true}
	return m, eachField(data, func(num protowire.Number, v uint64, b []byte) error {
		switch num {
		case 1:
			p := spPiece{kind: pieceNormal}
			err := eachField(b, func(num protowire.Number, v uint64, b []byte) error {
				switch num {
				case 1:
					p.text = string(b)
				case 2:
					p.score = math.Float32frombits(uint32(v))
				case 3:
					p.kind = v
				}
				return nil
			})
			if !utf8.ValidString(p.text) || p.text == "" {
				return fmt.Errorf("piece %d (%q) is not text", len(m.pieces), p.text)
			}
			m.pieces = append(m.pieces, p)
			return err
		case 2:
			return eachField(b, m.trainerField)
		case 3:
			return eachField(b, m.normalizerField)
		case 5:
			return eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
				m.denormalize = m.denormalize || num == 2 && len(b) > 0
				return nil
			})
		}
		return nil
	})
}

func (m *spModel) trainerField(num protowire.Number, v uint64, b []byte) error {
	switch num {
	case 3:
		m.modelType = v
	case 24:
		m.asSuffix = v != 0
	case 35:
		m.fallback = v != 0
	case 41:
		m.bos = int32(v)
	case 42:
		m.eos = int32(v)
	case 44:
		m.unkSurface = string(b)
	}
	return nil
}

func (m *spModel) normalizerField(num protowire.Number, v uint64, b []byte) error {
	switch num {
	case 2:
		m.charsmap = b
	case 3:
		m.dummyPrefix = v != 0
	case 4:
		m.removeExtra = v != 0
	case 5:
		m.escape = v != 0
	}
	return nil
}

// eachField calls f with every field of a message: its number or its bytes.
func eachField(data []byte, f func(num protowire.Number, v uint64, b []byte) error) error {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		var v uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v32 uint32
			v32, n = protowire.ConsumeFixed32(data)
			v = uint64(v32)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(num, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := f(num, v, b); err != nil {
			return err
		}
	}
	return nil
}
