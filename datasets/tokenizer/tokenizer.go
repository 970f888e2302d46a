package tokenizer

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Tokenizer is a loaded tokenizer. Load, FromFS, Parse and ParseSentencePiece make one.
type Tokenizer struct {
	tokens  []string         // by ID, as written in the vocabulary; "" where there is none
	ids     map[string]int32 // of tokens, added ones included
	control map[int32]bool   // tokens that text must not forge, see EncodeOrdinary
	special map[int32]bool   // tokens that Decode leaves out when asked to

	added         addedTokens
	normalize     normalizer
	pre           []preTokenizer
	scan          scanner // pre is this scanner and the byte-level alphabet alone; else nil
	chunked       bool    // long texts may be normalized in chunks
	model         model
	prefix        []int32 // of the post-processor
	suffix        []int32
	decoders      []decoder
	noDecoder     bool
	bos, eos      int32 // -1: none
	named         map[string]string
	template      string
	encoders      chan *encoder
	sentencePiece bool // made from a SentencePiece model
}

// recognise says which added tokens are looked for in a text.
type recognise int

const (
	allAdded      recognise = iota
	exceptControl           // those that are mere vocabulary, not control tokens
)

// Encode returns the IDs of text. Added tokens written out in text become their IDs, as
// in Hugging Face tokenizers; use EncodeOrdinary for text that must not do that.
// With special, the post-processor's tokens (such as BOS) are added.
func (t *Tokenizer) Encode(text string, special bool) []int32 {
	e := t.encoder()
	defer t.release(e)
	e.encode(text, allAdded)
	if !special {
		return e.ids()
	}
	ids := make([]int32, 0, len(t.prefix)+len(e.out)+len(t.suffix))
	ids = append(ids, t.prefix...)
	ids = append(ids, e.out...)
	return append(ids, t.suffix...)
}

// EncodeOrdinary returns the IDs of text, in which control tokens (those flagged
// special, or named by the tokenizer's configuration) have no meaning: a document that
// contains "</s>" cannot end a turn. No special tokens are added.
func (t *Tokenizer) EncodeOrdinary(text string) []int32 {
	e := t.encoder()
	defer t.release(e)
	e.encode(text, exceptControl)
	return e.ids()
}

// Position says what stands before a part of a text that is encoded in parts.
type Position int

// The positions. They matter to tokenizers that put a space before a text.
const (
	AtStart      Position = iota // nothing
	AfterSpecial                 // a special token
	AfterText                    // other text, which the part continues
)

// EncodePart is EncodeOrdinary for a part of a text.
func (t *Tokenizer) EncodePart(text string, at Position) []int32 {
	e := t.encoder()
	defer t.release(e)
	e.begin = place{section: at != AfterText, text: at == AtStart}
	e.encode(text, exceptControl)
	return e.ids()
}

// Count returns len(t.EncodeOrdinary(text)) without keeping the IDs.
func (t *Tokenizer) Count(text string) int {
	e := t.encoder()
	defer t.release(e)
	e.counting = true
	e.encode(text, exceptControl)
	return e.counted + len(e.out)
}

// EncodeBatch encodes texts on all cores, in order.
func (t *Tokenizer) EncodeBatch(texts []string, special bool) [][]int32 {
	out := make([][]int32, len(texts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(texts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(texts); i = int(next.Add(1)) - 1 {
				out[i] = t.Encode(texts[i], special)
			}
		})
	}
	wg.Wait()
	return out
}

// VocabSize returns the largest token ID plus one.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// BOS returns the token that begins a sequence, if the tokenizer has one.
func (t *Tokenizer) BOS() (id int32, ok bool) { return t.bos, t.bos >= 0 }

// EOS returns the token that ends a sequence, if the tokenizer has one.
func (t *Tokenizer) EOS() (id int32, ok bool) { return t.eos, t.eos >= 0 }

// TokenID returns the ID of the token written s in the vocabulary.
func (t *Tokenizer) TokenID(s string) (id int32, ok bool) {
	id, ok = t.ids[s]
	return id, ok
}

// Token returns the token of an ID as the vocabulary writes it, "" if there is none.
func (t *Tokenizer) Token(id int32) string {
	if id < 0 || int(id) >= len(t.tokens) {
		return ""
	}
	return t.tokens[id]
}

// IsSpecial reports whether Decode leaves id out when it skips special tokens.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.special[id] }

// NamedToken returns the text of a token that tokenizer_config.json names:
// "bos_token", "eos_token", "unk_token", "pad_token", …; "" if it does not.
func (t *Tokenizer) NamedToken(name string) string { return t.named[name] }

// ChatTemplate returns the Jinja chat template of the model directory, "" if none.
func (t *Tokenizer) ChatTemplate() string { return t.template }

// SpecialTokens returns the IDs the post-processor puts before and after a text.
func (t *Tokenizer) SpecialTokens() (prefix, suffix []int32) {
	return slices.Clone(t.prefix), slices.Clone(t.suffix)
}

// chunkSize is the length at which texts are cut for normalization.
const chunkSize = 1 << 20

// encoder is the working memory of one encoding at a time.
type encoder struct {
	t        *Tokenizer
	out      []int32
	begin    place // where the text to encode stands
	counting bool
	counted  int
	cache    *wordCache
	merger   merger
	syms     []symbol
}

// encoder takes a free encoder, so that word caches live on between calls.
func (t *Tokenizer) encoder() *encoder {
	select {
	case e := <-t.encoders:
		return e
	default:
		return &encoder{t: t, begin: place{true, true}, cache: newWordCache(), merger: merger{bpe: t.model.bpe}}
	}
}

// release keeps at most one encoder a core, without buffers that a long text blew up.
func (t *Tokenizer) release(e *encoder) {
	if cap(e.out) > keptBuffer {
		e.out = nil
	}
	if cap(e.syms) > keptBuffer {
		e.syms = nil
	}
	e.out, e.begin, e.counting, e.counted = e.out[:0], place{true, true}, false, 0
	select {
	case t.encoders <- e:
	default:
	}
}

func (e *encoder) encode(text string, which recognise) {
	if !utf8.ValidString(text) {
		text = decodeLossy([]byte(text))
	}
	e.t.added.raw.split(e.t, text, which, func(piece string, start int) {
		where := place{section: true}
		if start == 0 {
			where = e.begin
		}
		e.section(piece, where, which)
	}, e.emit)
}

// ids returns a copy of the result, which is never nil. A long one is handed over: release would not keep its buffer.
func (e *encoder) ids() []int32 {
	if cap(e.out) > keptBuffer {
		long := e.out
		e.out = nil
		return long
	}
	return append(make([]int32, 0, len(e.out)), e.out...)
}

// keptBuffer is the largest buffer, in elements, that an encoder keeps from one text to the next.
const keptBuffer = 1 << 18

func (e *encoder) emit(id int32) { e.out = append(e.out, id) }

// section encodes the text between two added tokens. A long one is cut into chunks, which all cores share.
func (e *encoder) section(s string, where place, which recognise) {
	if !e.t.chunked || len(s) <= chunkSize {
		e.chunk(s, where, which)
		return
	}
	// Each chunk has a channel of its own, in a queue that keeps their order and bounds how many are begun.
	queue := make(chan chan []int32, runtime.GOMAXPROCS(0))
	counted := make(chan int, 1)
	go func() {
		defer close(queue)
		var total atomic.Int64
		var begun sync.WaitGroup
		for len(s) > 0 {
			chunk, at := s, where
			if len(s) > chunkSize {
				chunk = s[:chunkEnd(s)]
			}
			s, where = s[len(chunk):], place{}
			done := make(chan []int32, 1)
			queue <- done
			begun.Go(func() {
				ids, n := e.t.encodeChunk(chunk, at, which, e.counting)
				total.Add(int64(n))
				done <- ids
			})
		}
		begun.Wait()
		counted <- int(total.Load())
	}()
	var parts [][]int32
	for done := range queue {
		parts = append(parts, <-done)
	}
	n := <-counted
	if e.counting {
		e.counted += n
		return
	}
	e.out = slices.Grow(e.out, n) // once: growing step by step would take several times the memory
	for _, ids := range parts {
		e.out = append(e.out, ids...)
	}
}

// encodeChunk returns the IDs of a chunk, or with counting only how many there are.
func (t *Tokenizer) encodeChunk(s string, where place, which recognise, counting bool) (ids []int32, n int) {
	e := t.encoder()
	defer t.release(e)
	e.counting = counting
	e.chunk(s, where, which)
	if counting {
		return nil, e.counted + len(e.out)
	}
	n = len(e.out)
	return e.ids(), n
}

// chunk normalizes and encodes s.
func (e *encoder) chunk(s string, where place, which recognise) {
	if e.t.normalize != nil {
		s = e.t.normalize.apply(s, where.section)
	}
	if e.t.added.normalized.empty() {
		e.pieces(s, where)
	} else {
		e.t.added.normalized.split(e.t, s, which, func(piece string, start int) {
			e.pieces(piece, place{section: where.section || start > 0, text: where.text && start == 0})
		}, e.emit)
	}
}

// tally turns IDs into their number where that is all that is asked for, before they take much memory: a text without spaces has no chunks.
func (e *encoder) tally() {
	if e.counting && len(e.out) >= keptBuffer/2 {
		e.counted += len(e.out)
		e.out = e.out[:0]
	}
}

// chunkEnd returns a place near chunkSize where s can be cut without effect on
// normalizers, known patterns and merges: before a space between ASCII letters.
func chunkEnd(s string) int {
	letter := func(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }
	for i := chunkSize; i+1 < len(s); {
		j := strings.IndexByte(s[i:len(s)-1], ' ')
		if j < 0 {
			break
		}
		i += j
		if letter(s[i-1]) && letter(s[i+1]) {
			return i
		}
		i++
	}
	return len(s)
}

// pieces pre-tokenizes s and encodes the pieces.
func (e *encoder) pieces(s string, where place) {
	if e.t.scan != nil {
		for i := 0; i < len(s); {
			end := e.t.scan(s, i)
			e.word(s[i:end])
			i = end
			e.tally()
		}
		return
	}
	e.preTokenize(0, s, where)
}

func (e *encoder) preTokenize(step int, s string, where place) {
	if s == "" {
		return
	}
	if step == len(e.t.pre) {
		e.piece(s)
		e.tally()
		return
	}
	e.t.pre[step].split(s, where, func(piece string, where place) {
		e.preTokenize(step+1, piece, where)
	})
}

// decodeLossy reads b as UTF-8 with U+FFFD for each maximal malformed part.
func decodeLossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b) + 8)
	for len(b) > 0 {
		r, w := utf8.DecodeRune(b)
		if r == utf8.RuneError && w <= 1 {
			w = malformed(b)
		}
		out.WriteRune(r)
		b = b[w:]
	}
	return out.String()
}

// malformed returns the length of the maximal prefix of b that could have begun a
// character (Unicode, "substitution of maximal subparts"), at least 1.
func malformed(b []byte) int {
	n, lo, hi := 0, byte(0x80), byte(0xBF)
	switch c := b[0]; {
	case 0xC2 <= c && c <= 0xDF:
		n = 1
	case 0xE0 <= c && c <= 0xEF:
		n = 2
		if c == 0xE0 {
			lo = 0xA0
		} else if c == 0xED {
			hi = 0x9F
		}
	case 0xF0 <= c && c <= 0xF4:
		n = 3
		if c == 0xF0 {
			lo = 0x90
		} else if c == 0xF4 {
			hi = 0x8F
		}
	}
	i := 1
	for ; i <= n && i < len(b) && lo <= b[i] && b[i] <= hi; i++ {
		lo, hi = 0x80, 0xBF
	}
	return i
}
