package tokenizer

import (
	"bytes"
	"cmp"
	"container/heap"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
)

// Options say what Train makes.
type Options struct {
	// VocabSize is the number of tokens: special tokens, the 256 bytes and merges. Train
	// makes fewer when the texts have no more pairs to merge.
	VocabSize int
	// MinFrequency is the number of times a pair must occur to be merged; 0 means 2.
	MinFrequency int
	// SpecialTokens get the first IDs, in order.
	SpecialTokens []string
	// BOS, EOS and Pad name the special tokens with these roles; "" for none. BOS begins
	// every text that is encoded with special tokens.
	BOS, EOS, Pad string
	// ChatTemplate is a Jinja template to write into the configuration; may be "".
	ChatTemplate string
}

// TrainStats say what a training saw and made.
type TrainStats struct {
	Texts     int   `json:"texts"`
	Bytes     int64 `json:"bytes"`
	Words     int64 `json:"words"`          // pieces of the pre-tokenizer
	Distinct  int   `json:"distinct_words"` // different ones
	Skipped   int64 `json:"skipped_words"`  // longer than longestWord
	Merges    int   `json:"merges"`
	VocabSize int   `json:"vocab_size"`
}

// longestWord is the length in bytes of the longest pieces that training looks at; what
// is longer is no word of a language, and could be of any size.
const longestWord = 256

// Train learns a byte-level byte-pair encoding from texts and returns it as a Hugging
// Face tokenizer.json and tokenizer_config.json. Pieces follow the Llama-3 pattern. The
// same texts and options give the same bytes: of equally frequent pairs the one
// with the lower token IDs is merged first.
func Train(texts iter.Seq[string], opts Options) (tokenizerJSON, configJSON []byte, stats TrainStats, err error) {
	fail := func(format string, args ...any) ([]byte, []byte, TrainStats, error) {
		return nil, nil, stats, fmt.Errorf("tokenizer training: "+format, args...)
	}
	if least := len(opts.SpecialTokens) + 256; opts.VocabSize < least {
		return fail("vocabulary of %d tokens is too small; %d special tokens and 256 bytes need %d", opts.VocabSize, len(opts.SpecialTokens), least)
	}
	seen := map[string]bool{}
	for _, s := range opts.SpecialTokens {
		if s == "" || seen[s] {
			return fail("special token %q is empty or there twice", s)
		}
		seen[s] = true
	}
	for _, s := range []string{opts.BOS, opts.EOS, opts.Pad} {
		if s != "" && !seen[s] {
			return fail("%q is not among the special tokens", s)
		}
	}
	tr := newTrainer(opts)
	tr.count(texts, &stats)
	tr.learn(&stats)
	stats.VocabSize = len(tr.tokens)
	if tokenizerJSON, err = tr.tokenizerFile(); err == nil {
		configJSON, err = tr.configFile()
	}
	return tokenizerJSON, configJSON, stats, err
}

// trainer learns merges from the distinct words and how often each occurs.
type trainer struct {
	opts   Options
	tokens []string // by ID, in the byte alphabet
	merges [][2]int32

	words  [][]int32 // current tokens of each distinct word
	counts []int64
	pairs  map[uint64]*pairInfo
	queue  pairQueue
}

// pairInfo is what is known of two adjacent tokens.
type pairInfo struct {
	count int64
	words []int32 // words that had the pair at some time, maybe repeated
}

type queuedPair struct {
	count int64
	pair  uint64
}

// pairQueue is a heap by count, then by token IDs. Counts in it may be out of date.
type pairQueue []queuedPair

func (q pairQueue) Len() int { return len(q) }
func (q pairQueue) Less(i, j int) bool {
	if q[i].count != q[j].count {
		return q[i].count > q[j].count
	}
	return q[i].pair < q[j].pair
}
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *pairQueue) Push(x any) { *q = append(*q, x.(queuedPair)) }

// Pop implements heap.Interface.
func (q *pairQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func newTrainer(opts Options) *trainer {
	t := &trainer{opts: opts, pairs: map[uint64]*pairInfo{}}
	t.tokens = append(t.tokens, opts.SpecialTokens...)
	for _, r := range byteAlphabet {
		t.tokens = append(t.tokens, string(r))
	}
	return t
}

func (t *trainer) count(texts iter.Seq[string], stats *TrainStats) {
	counts := map[string]int64{}
	for text := range texts {
		stats.Texts++
		stats.Bytes += int64(len(text))
		text = decodeLossy([]byte(text))
		for i := 0; i < len(text); {
			end := scanLlama3(text, i, 3)
			stats.Words++
			if end-i > longestWord {
				stats.Skipped++
			} else {
				counts[text[i:end]]++
			}
			i = end
		}
	}
	stats.Distinct = len(counts)
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	slices.Sort(words)
	base := int32(len(t.opts.SpecialTokens))
	for _, w := range words {
		ids := make([]int32, len(w))
		for i := range len(w) {
			ids[i] = base + int32(w[i])
		}
		t.words = append(t.words, ids)
		t.counts = append(t.counts, counts[w])
	}
}

func pairKey(left, right int32) uint64 { return uint64(left)<<32 | uint64(right) }

func (t *trainer) learn(stats *TrainStats) {
	least := int64(cmp.Or(t.opts.MinFrequency, 2))
	changed := map[uint64]bool{}
	for w, ids := range t.words {
		for i := 0; i+1 < len(ids); i++ {
			t.change(pairKey(ids[i], ids[i+1]), w, t.counts[w], changed)
		}
	}
	t.requeue(changed)
	for len(t.tokens) < t.opts.VocabSize && len(t.queue) > 0 {
		top := heap.Pop(&t.queue).(queuedPair)
		info := t.pairs[top.pair]
		if info == nil || info.count != top.count {
			continue // out of date: the right count is in the queue as well
		}
		if info.count < least {
			break
		}
		left, right := int32(top.pair>>32), int32(uint32(top.pair))
		id := int32(len(t.tokens))
		t.tokens = append(t.tokens, t.tokens[left]+t.tokens[right])
		t.merges = append(t.merges, [2]int32{left, right})
		clear(changed)
		for _, w := range info.words {
			t.mergeIn(int(w), left, right, id, changed)
		}
		delete(t.pairs, top.pair)
		delete(changed, top.pair)
		t.requeue(changed)
	}
	stats.Merges = len(t.merges)
}

// change adds n to the count of a pair for word w.
func (t *trainer) change(pair uint64, w int, n int64, changed map[uint64]bool) {
	info := t.pairs[pair]
	if info == nil {
		info = &pairInfo{}
		t.pairs[pair] = info
	}
	info.count += n
	if n > 0 && (len(info.words) == 0 || info.words[len(info.words)-1] != int32(w)) {
		info.words = append(info.words, int32(w))
	}
	changed[pair] = true
}

func (t *trainer) requeue(changed map[uint64]bool) {
	for pair := range changed {
		if info := t.pairs[pair]; info.count > 0 {
			heap.Push(&t.queue, queuedPair{info.count, pair})
		} else {
			delete(t.pairs, pair)
		}
	}
}

// mergeIn replaces the pair by id in word w and corrects the counts of its neighbours.
func (t *trainer) mergeIn(w int, left, right, id int32, changed map[uint64]bool) {
	ids, n := t.words[w], t.counts[w]
	out := ids[:0]
	for i := 0; i < len(ids); i++ {
		if i+1 >= len(ids) || ids[i] != left || ids[i+1] != right {
			out = append(out, ids[i])
			continue
		}
		if len(out) > 0 {
			last := out[len(out)-1]
			t.change(pairKey(last, left), w, -n, changed)
			t.change(pairKey(last, id), w, n, changed)
		}
		if i+2 < len(ids) {
			t.change(pairKey(right, ids[i+2]), w, -n, changed)
			t.change(pairKey(id, ids[i+2]), w, n, changed)
		}
		out = append(out, id)
		i++
	}
	t.words[w] = out
}

// object writes JSON with keys in the given order.
type object []struct {
	Key   string
	Value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, kv := range o {
		b.WriteByte("{,"[min(i, 1)])
		key, err := marshal(kv.Key)
		if err != nil {
			return nil, err
		}
		value, err := marshal(kv.Value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal is json.Marshal without HTML escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func (t *trainer) tokenizerFile() ([]byte, error) {
	added := []any{}
	for id, s := range t.opts.SpecialTokens {
		added = append(added, object{
			{"id", id}, {"content", s}, {"single_word", false}, {"lstrip", false},
			{"rstrip", false}, {"normalized", false}, {"special", true},
		})
	}
	vocab := make(object, len(t.tokens))
	for id, tok := range t.tokens {
		vocab[id].Key, vocab[id].Value = tok, id
	}
	merges := make([][2]string, len(t.merges))
	for i, m := range t.merges {
		merges[i] = [2]string{t.tokens[m[0]], t.tokens[m[1]]}
	}
	byteLevel := object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}
	var post any = byteLevel
	if t.opts.BOS != "" {
		post = bosTemplate(t.opts.BOS, slices.Index(t.opts.SpecialTokens, t.opts.BOS))
	}
	return marshal(object{
		{"version", "1.0"}, {"truncation", nil}, {"padding", nil},
		{"added_tokens", added},
		{"normalizer", nil},
		{"pre_tokenizer", object{{"type", "Sequence"}, {"pretokenizers", []any{
			object{{"type", "Split"}, {"pattern", object{{"Regex", patternLlama3}}}, {"behavior", "Isolated"}, {"invert", false}},
			byteLevel,
		}}}},
		{"post_processor", post},
		{"decoder", byteLevel},
		{"model", object{
			{"type", "BPE"}, {"dropout", nil}, {"unk_token", nil}, {"continuing_subword_prefix", nil},
			{"end_of_word_suffix", nil}, {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", false},
			{"vocab", vocab}, {"merges", merges},
		}},
	})
}

func bosTemplate(bos string, id int) object {
	special := func(typeID int) object {
		return object{{"SpecialToken", object{{"id", bos}, {"type_id", typeID}}}}
	}
	sequence := func(name string, typeID int) object {
		return object{{"Sequence", object{{"id", name}, {"type_id", typeID}}}}
	}
	return object{
		{"type", "TemplateProcessing"},
		{"single", []any{special(0), sequence("A", 0)}},
		{"pair", []any{special(0), sequence("A", 0), special(1), sequence("B", 1)}},
		{"special_tokens", object{{bos, object{{"id", bos}, {"ids", []int{id}}, {"tokens", []string{bos}}}}}},
	}
}

func (t *trainer) configFile() ([]byte, error) {
	config := object{{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}}
	for _, named := range (object{
		{"bos_token", t.opts.BOS}, {"eos_token", t.opts.EOS}, {"pad_token", t.opts.Pad}, {"chat_template", t.opts.ChatTemplate},
	}) {
		if named.Value != "" {
			config = append(config, named)
		}
	}
	return marshal(config)
}
