package documents

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/longalign/longalign-go/datasets"
)

// Words are runs of letters and digits, lower-cased; each Han, Hiragana, Katakana or Hangul
// character is one, for those are written without spaces or with few.

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// eachWord calls yield with a hash of each word of text, in order, until it returns false.
func eachWord(text string, yield func(uint64) bool) {
	h, inside := uint64(fnvOffset), false
	end := func() bool {
		more := !inside || yield(mix(h))
		h, inside = fnvOffset, false
		return more
	}
	for _, r := range text {
		more := true
		switch {
		case r < utf8.RuneSelf:
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
				h, inside = (h^uint64(r))*fnvPrime, true
			} else if inside {
				more = end()
			}
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul):
			if more = end(); more {
				h, inside = (h^uint64(r))*fnvPrime, true
				more = end()
			}
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			h, inside = (h^uint64(unicode.ToLower(r)))*fnvPrime, true
		default:
			more = end()
		}
		if !more {
			return
		}
	}
	end()
}

// mix spreads h over all 64 bits (the finalizer of SplitMix64).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// gramBlock is how many words are looked at together: what a text takes besides itself does not grow with it.
const gramBlock = 1024

// nGrams calls yield with a hash of each run of n words of text, until it returns false. It returns the number of
// words seen; if they are fewer than n there was no run.
func nGrams(text string, n int, yield func(uint64) bool) (words int) {
	window := make([]uint64, 0, n+gramBlock)
	eachWord(text, func(w uint64) bool {
		if len(window) == cap(window) {
			window = window[:copy(window, window[len(window)-(n-1):])]
		}
		window = append(window, w)
		if words++; words < n {
			return true
		}
		h := uint64(fnvOffset)
		for _, w := range window[len(window)-n:] {
			h = mix(h ^ w)
		}
		return yield(h)
	})
	return words
}

// MinHash parameters: signatures of 128 minima have a standard error of 0.04 at similarity 0.8; 32 bands of
// 4 rows find 99.99 % of the pairs at 0.7 and leave the decision to the signatures.
const (
	shingleWords = 5
	bandRows     = 4
	bands        = 32
)

type signature [bands * bandRows]uint32

// MarshalText writes the minima one after the other, little-endian, in base64.
func (s *signature) MarshalText() ([]byte, error) {
	raw, err := binary.Append(nil, binary.LittleEndian, s[:])
	return base64.StdEncoding.AppendEncode(nil, raw), err
}

// UnmarshalText reads what MarshalText wrote.
func (s *signature) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err == nil && len(raw) != 4*len(s) {
		err = fmt.Errorf("a signature of %d bytes", len(raw))
	}
	if err != nil {
		return err
	}
	_, err = binary.Decode(raw, binary.LittleEndian, s[:])
	return err
}

// permutations are multipliers and offsets of the 128 hash functions, from SplitMix64.
var permutations = func() (p [bands * bandRows][2]uint64) {
	for i := range p {
		p[i] = [2]uint64{mix(uint64(2*i+1)*0x9e3779b97f4a7c15) | 1, mix(uint64(2*i+2) * 0x9e3779b97f4a7c15)}
	}
	return p
}()

// minHash returns the signature of the word 5-grams of a text, of all its words if they are fewer; ok is false if there are none.
func minHash(text string) (s signature, ok bool) {
	for i := range s {
		s[i] = math.MaxUint32
	}
	add := func(h uint64) bool {
		for i := range s {
			s[i] = min(s[i], uint32((h*permutations[i][0]+permutations[i][1])>>32))
		}
		return true
	}
	words := nGrams(text, shingleWords, add)
	if 0 < words && words < shingleWords {
		nGrams(text, words, add)
	}
	return s, words > 0
}

// nearIndex finds earlier texts similar to a new one.
type nearIndex struct {
	threshold  float64
	signatures []signature
	buckets    [bands]map[uint64][]int32
}

func newNearIndex(threshold float64) *nearIndex {
	x := &nearIndex{threshold: threshold}
	for b := range x.buckets {
		x.buckets[b] = map[uint64][]int32{}
	}
	return x
}

// add reports whether a text similar to an earlier one has this signature; if not it is remembered.
func (x *nearIndex) add(s *signature) (similar bool) {
	var keys [bands]uint64
	for b := range keys {
		h := uint64(fnvOffset)
		for _, v := range s[b*bandRows : (b+1)*bandRows] {
			h = mix(h ^ uint64(v))
		}
		keys[b] = h
		for _, other := range x.buckets[b][h] {
			if x.signatures[other].similarity(s) >= x.threshold {
				return true
			}
		}
	}
	for b, key := range keys {
		x.buckets[b][key] = append(x.buckets[b][key], int32(len(x.signatures)))
	}
	x.signatures = append(x.signatures, *s)
	return false
}

// similarity estimates the Jaccard similarity of two texts' 5-grams.
func (s *signature) similarity(o *signature) float64 {
	equal := 0
	for i := range s {
		if s[i] == o[i] {
			equal++
		}
	}
	return float64(equal) / float64(len(s))
}

// Evaluation holds the n-grams of evaluation texts. Its zero value holds none.
type Evaluation struct {
	n          int
	grams      map[uint64]int
	benchmarks []string
	// Short counts texts with fewer than n words; they cannot be looked for.
	Short int
}

// NewEvaluation returns an empty set of n-grams of n words.
func NewEvaluation(n int) *Evaluation { return &Evaluation{n: n, grams: map[uint64]int{}} }

// Add adds a text of a benchmark.
func (e *Evaluation) Add(benchmark, text string) {
	k := -1
	for i, b := range e.benchmarks {
		if b == benchmark {
			k = i
		}
	}
	if k < 0 {
		k = len(e.benchmarks)
		e.benchmarks = append(e.benchmarks, benchmark)
	}
	words := nGrams(text, e.n, func(h uint64) bool {
		if _, ok := e.grams[h]; !ok {
			e.grams[h] = k
		}
		return true
	})
	if words < e.n {
		e.Short++
	}
}

// ReadEvaluation reads the texts of sources, one a benchmark, for their n-grams of n words. Texts that cannot be read are
// errors whatever the policy for documents, for they would be found nowhere.
func ReadEvaluation(ctx context.Context, sources []Source, n int, maxBytes int64) (*Evaluation, error) {
	e := NewEvaluation(max(n, 1))
	for _, s := range sources {
		texts := 0
		_, err := Read(ctx, s, maxBytes, func(d datasets.Document) error {
			texts++
			e.Add(s.Name, d.Text)
			return nil
		}, func(e *InputError) error { return e })
		if err != nil {
			return nil, fmt.Errorf("documents: evaluation texts of %s: %w", s.Name, err)
		}
		if texts == 0 {
			return nil, fmt.Errorf("documents: evaluation texts of %s: there are none; check decontaminate's path and patterns", s.Name)
		}
	}
	return e, nil
}

// overlap returns the benchmark that a text shares an n-gram with.
func (e *Evaluation) overlap(text string) (benchmark string, found bool) {
	if e == nil || len(e.grams) == 0 {
		return "", false
	}
	nGrams(text, e.n, func(h uint64) bool {
		if k, ok := e.grams[h]; ok {
			benchmark, found = e.benchmarks[k], true
		}
		return !found
	})
	return benchmark, found
}
