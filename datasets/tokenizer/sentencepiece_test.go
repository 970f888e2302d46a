package tokenizer

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// protoModel writes a SentencePiece model file of our own making.
type protoModel struct {
	pieces     []spPiece
	modelType  uint64
	fallback   bool
	suffix     bool
	dummy      bool
	extra      bool
	charsmap   []byte
	denormRule bool
}

func (m protoModel) bytes() []byte {
	field := func(out []byte, num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(out, num, protowire.VarintType), v)
	}
	blob := func(out []byte, num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), b)
	}
	var out []byte
	for _, p := range m.pieces {
		b := blob(nil, 1, []byte(p.text))
		b = protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), math.Float32bits(p.score))
		out = blob(out, 1, field(b, 3, p.kind))
	}
	trainer := field(nil, 3, m.modelType)
	trainer = field(trainer, 24, protowire.EncodeBool(m.suffix))
	trainer = field(trainer, 35, protowire.EncodeBool(m.fallback))
	out = blob(out, 2, trainer)
	norm := blob(nil, 2, m.charsmap)
	norm = field(norm, 3, protowire.EncodeBool(m.dummy))
	norm = field(norm, 4, protowire.EncodeBool(m.extra))
	out = blob(out, 3, norm)
	if m.denormRule {
		out = blob(out, 5, blob(nil, 2, []byte("x")))
	}
	return out
}

func smallModel() protoModel {
	m := protoModel{modelType: modelBPE, dummy: true, pieces: []spPiece{
		{"<unk>", 0, pieceUnknown}, {"<s>", 0, pieceControl}, {"</s>", 0, pieceControl}, {"<sep>", 0, pieceUserDefined},
		{"ab", -1, pieceNormal}, {"▁ab", -2, pieceNormal}, {"bc", -1, pieceNormal}, {"xq", -3, pieceNormal},
	}}
	for _, c := range []string{"▁", "a", "b", "c", "x", "1"} {
		m.pieces = append(m.pieces, spPiece{c, -10, pieceNormal})
	}
	return m
}

func parseSmall(t *testing.T, m protoModel) *Tokenizer {
	t.Helper()
	tok, err := ParseSentencePiece(m.bytes(), []byte(`{"add_bos_token":true}`))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// tokensOf spells ids out, to be read in tests.
func tokensOf(tok *Tokenizer, ids []int32) string {
	var out []string
	for _, id := range ids {
		out = append(out, tok.Token(id))
	}
	return strings.Join(out, " ")
}

func TestSentencePieceModelsEncodeByScore(t *testing.T) {
	plain, extra, fallback := smallModel(), smallModel(), smallModel()
	extra.extra = true
	fallback.fallback = true
	for i := range 256 {
		fallback.pieces = append(fallback.pieces, spPiece{"<0x" + strings.ToUpper(hexByte(i)) + ">", 0, pieceByte})
	}
	for name, tt := range map[string]struct {
		model          protoModel
		in, want, back string
	}{
		"a space is put before the text":            {plain, "ab", "▁ab", "ab"},
		"of equal scores the left one merges":       {plain, "1abc", "▁ 1 ab c", "1abc"},
		"user-defined symbols stay whole":           {plain, "ab<sep>ab", "▁ab <sep> ab", "ab<sep>ab"},
		"control symbols in a text are text":        {plain, "</s>", "▁ <unk>", " \u2047 "},
		"runs of unknown characters are one":        {plain, "a??", "▁ a <unk>", "a \u2047 "},
		"a character that only occurs in pieces":    {plain, "xq q", "▁ xq ▁ <unk>", "xq  \u2047 "},
		"spaces are kept":                           {plain, " a  b ", "▁ ▁ a ▁ ▁ b ▁", " a  b "},
		"spaces are squeezed if the model does so":  {extra, " a  b ", "▁ a ▁ b", "a b"},
		"unknown characters fall back to bytes":     {fallback, "é", "▁ <0xC3> <0xA9>", "é"},
		"unknown parts of pieces fall back as well": {fallback, "q", "▁ <0x71>", "q"},
		"an empty text":                             {plain, "", "", ""},
	} {
		tok := parseSmall(t, tt.model)
		ids := tok.Encode(tt.in, false)
		if diff := cmp.Diff(tt.want, tokensOf(tok, ids)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if got := tok.Decode(ids, true); got != tt.back {
			t.Errorf("%s: decoded to %q, want %q", name, got, tt.back)
		}
		if got := tok.Encode(tt.in, true); len(got) != len(ids)+1 || got[0] != 1 {
			t.Errorf("%s: with special tokens %v, want BOS before %v", name, got, ids)
		}
	}
}

func hexByte(i int) string { return string([]byte{hexDigits[i>>4], hexDigits[i&15]}) }

func TestTheCharsmapRewritesTheLongestPrefix(t *testing.T) {
	units := make([]uint32, 256)
	units[0] = 1 << 10                   // root: children at 1 ^ byte
	units['A'^1] = 'A' | 1<<8 | 0x80<<10 // "A": a value at the node ^ 0x80
	units['A'^1^0x80] = 1 << 31          // → replacement 0
	units['A'^1^0x80^'B'] = 'B' | 1<<8 | 1<<10
	units['A'^1^0x80^'B'^1] = 1<<31 | 2 // "AB" → replacement 2
	blob := binary.LittleEndian.AppendUint32(nil, uint32(4*len(units)))
	for _, u := range units {
		blob = binary.LittleEndian.AppendUint32(blob, u)
	}
	m := smallModel()
	m.charsmap = append(blob, "a\x00bc\x00"...)
	tok := parseSmall(t, m)
	if diff := cmp.Diff("▁ab bc", tokensOf(tok, tok.Encode("AbAB", false))); diff != "" {
		t.Error(diff)
	}
}

func TestSentencePieceModelsBeyondThePartAreRefusedByName(t *testing.T) {
	unigram, suffix, denorm, unused := smallModel(), smallModel(), smallModel(), smallModel()
	unigram.modelType = 1
	suffix.suffix = true
	denorm.denormRule = true
	unused.pieces = append(unused.pieces, spPiece{"zz", 0, pieceUnused})
	for want, m := range map[string]protoModel{
		"trainer_spec.model_type: UNIGRAM":        unigram,
		"trainer_spec.treat_whitespace_as_suffix": suffix,
		"denormalizer_spec":                       denorm,
		"pieces[14]: type UNUSED":                 unused,
	} {
		_, err := ParseSentencePiece(m.bytes(), nil)
		var unsupported *UnsupportedError
		if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestChatGLMsTokensFollowTheVocabulary(t *testing.T) {
	m := smallModel()
	tok, err := ParseSentencePiece(m.bytes(), []byte(`{"tokenizer_class":"ChatGLMTokenizer"}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("[gMASK] sop ▁ab", tokensOf(tok, tok.Encode("ab", true))); diff != "" {
		t.Error(diff)
	}
	if id, ok := tok.TokenID("<|user|>"); !ok || int(id) != len(m.pieces)+6 {
		t.Errorf("<|user|> is %d, %v", id, ok)
	}
	if got := tokensOf(tok, tok.Encode("sop", false)); strings.Contains(got, "sop") {
		t.Errorf("a text forged a command token: %s", got)
	}
}

func FuzzParseSentencePiece(f *testing.F) {
	f.Add(smallModel().bytes(), "ab<sep> abc?? ")
	f.Fuzz(func(t *testing.T, model []byte, text string) {
		tok, err := ParseSentencePiece(model, nil)
		if err != nil {
			return
		}
		for _, id := range tok.Encode(text, true) {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Fatalf("token %d of a vocabulary of %d", id, tok.VocabSize())
			}
		}
	})
}
