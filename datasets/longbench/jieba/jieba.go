// Package jieba cuts Chinese text into words exactly as Python's jieba 0.42.1
// does in its default (accurate, HMM) mode, which is what published Chinese
// LongBench scores were computed with. Other ports differ on one string in ten or more.
//
// Order: a sentence is split into blocks of Han, Latin and digit characters and
// the rest (blocks.go); a block is cut along its most probable path through the
// dictionary (Dictionary, cut.go); runs of single characters that are no word go
// to a hidden Markov model (hmm.go).
//
// The dictionary and the model are jieba's own data and are not part of this
// program: Find looks for them where users have them, Load reads them.
package jieba

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"unicode/utf8"
)

// The files of a jieba data directory, laid out as in the Python package.
const (
	DictFile  = "dict.txt"
	StartFile = "finalseg/prob_start.py"
	TransFile = "finalseg/prob_trans.py"
	EmitFile  = "finalseg/prob_emit.py"
)

// dictDigest is the SHA-256 of dict.txt in jieba 0.42.1.
const dictDigest = "7197c3211ddd98962b036cdf40324d1ea2bfaa12bd028e68faa70111a88e12a8"

// Dictionary is jieba's word list and hidden Markov model. It is safe for
// concurrent use.
type Dictionary struct {
	words  trie
	hmm    model
	digest string
}

// Load reads the four data files from fsys.
func Load(fsys fs.FS) (*Dictionary, error) {
	d := new(Dictionary)
	var hmmErr error
	done := make(chan struct{})
	go func() { // the two halves are of like cost, and a command waits for both
		defer close(done)
		hmmErr = d.hmm.load(fsys)
	}()
	dict, err := fs.ReadFile(fsys, DictFile)
	if err == nil {
		err = d.words.load(dict)
	}
	<-done
	if err == nil {
		err = hmmErr
	}
	if err != nil {
		return nil, fmt.Errorf("jieba: %w", err)
	}
	sum := sha256.Sum256(dict)
	d.digest = hex.EncodeToString(sum[:])
	return d, nil
}

// Digest is the SHA-256 of the word list, to be recorded with scores made by it.
func (d *Dictionary) Digest() string { return d.digest }

// Standard reports whether the word list is that of jieba 0.42.1; with another
// one Chinese scores are not comparable with published ones.
func (d *Dictionary) Standard() bool { return d.digest == dictDigest }

// load parses lines "word frequency [tag]". As in jieba the total counts a
// repeated word each time, the word has its last frequency, and every prefix of
// a word is an entry of frequency 0.
func (t *trie) load(dict []byte) error {
	t.init(bytes.Count(dict, []byte{'\n'}))
	var (
		total uint64
		path  []uint32 // nodes of the previous word's prefixes
		prev  []rune
	)
	weights := newLogTable()
	for line := 1; len(dict) > 0; line++ {
		var entry []byte
		entry, dict, _ = bytes.Cut(dict, []byte{'\n'})
		word, rest, ok := bytes.Cut(bytes.TrimSpace(entry), []byte{' '})
		digits, _, _ := bytes.Cut(rest, []byte{' '})
		freq, err := strconv.ParseUint(string(digits), 10, 32)
		if !ok || err != nil || len(word) == 0 || !utf8.Valid(word) {
			return fmt.Errorf("%s:%d: want \"word frequency\", have %.40q; is this jieba's dictionary?", DictFile, line, entry)
		}
		total += freq
		// Neighbouring lines share prefixes, so most steps of the walk are known.
		node, depth, same := uint32(0), 0, true
		for len(word) > 0 {
			r, size := utf8.DecodeRune(word)
			word = word[size:]
			if same && depth < len(prev) && prev[depth] == r {
				node = path[depth]
			} else {
				if same {
					same, prev, path = false, prev[:depth], path[:depth]
				}
				node = t.insert(node, r)
				prev, path = append(prev, r), append(path, node)
			}
			depth++
		}
		prev, path = prev[:depth], path[:depth]
		t.isWord[node] = freq > 0
		t.weight[node] = weights.log(freq)
	}
	if total == 0 {
		return fmt.Errorf("%s has no words", DictFile)
	}
	t.logTotal = logInteger(total)
	for i := range t.weight {
		t.weight[i] -= t.logTotal
	}
	return nil
}
