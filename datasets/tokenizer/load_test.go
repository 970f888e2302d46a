package tokenizer

import (
	"encoding/json"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// variant is the trained test tokenizer with some parts of its JSON replaced.
func variant(t testing.TB, parts map[string]string) []byte {
	t.Helper()
	data, _, _, err := Train(slices.Values(trainTexts()), trainOptions)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for key, value := range parts {
		file[key] = json.RawMessage(value)
	}
	out, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnsupportedComponentsAreRefusedByName(t *testing.T) {
	for want, parts := range map[string]map[string]string{
		`tokenizer.json: pre_tokenizer.pretokenizers[0]: type "BertPreTokenizer" is not supported`: {"pre_tokenizer": `{"type":"Sequence","pretokenizers":[{"type":"BertPreTokenizer"}]}`},
		`normalizer.normalizers[1]: type "Precompiled"`:                                            {"normalizer": `{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Precompiled","precompiled_charsmap":"x"}]}`},
		`pre_tokenizer: a step after ByteLevel`:                                                    {"pre_tokenizer": `{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]}`},
		`lazy repetition is not supported`:                                                         {"pre_tokenizer": `{"type":"Split","pattern":{"Regex":"a+?"},"behavior":"Isolated"}`},
		`pre_tokenizer.behavior: "Sideways"`:                                                       {"pre_tokenizer": `{"type":"Split","pattern":{"String":"a"},"behavior":"Sideways"}`},
		`model: type "Unigram"`:                                                                    {"model": `{"type":"Unigram","vocab":[["a",0]]}`},
		`model.dropout: 0.1`:                                                                       {"model": `{"type":"BPE","dropout":0.1,"vocab":{"a":0},"merges":[]}`},
		`model.end_of_word_suffix: "</w>"`:                                                         {"model": `{"type":"BPE","end_of_word_suffix":"</w>","vocab":{"a":0},"merges":[]}`},
		`post_processor: type "BertProcessing"`:                                                    {"post_processor": `{"type":"BertProcessing","sep":["a",0],"cls":["b",1]}`},
		`post_processor.processors[1]: a second TemplateProcessing`:                                {"post_processor": `{"type":"Sequence","processors":[{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"e"}},{"Sequence":{"id":"A"}}],"special_tokens":{"e":{"ids":[0]}}},{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}]}]}`},
		`a pattern that matches the empty text is not supported`:                                   {"pre_tokenizer": `{"type":"Split","pattern":{"Regex":"x*|y"},"behavior":"Isolated"}`},
		`prepend_scheme "first" after a normalizer that changes a text's beginning`:                {"normalizer": `{"type":"StripAccents"}`, "pre_tokenizer": `{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"}`},
		`decoder: type "WordPiece"`:                                                                {"decoder": `{"type":"WordPiece"}`},
	} {
		_, err := Parse(variant(t, parts), nil)
		var unsupported *UnsupportedError
		if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s\ngot %v", want, err)
		}
	}
}

func TestARefusedPatternIsNamedOnce(t *testing.T) {
	_, err := Parse(variant(t, map[string]string{"pre_tokenizer": `{"type":"Split","pattern":{"Regex":"a+?"},"behavior":"Isolated"}`}), nil)
	var refused *UnsupportedError
	if !errors.As(err, &refused) || strings.Count(err.Error(), "is not supported") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestMalformedFilesAreNamed(t *testing.T) {
	for want, parts := range map[string]map[string]string{
		"tokenizer.json: model.merges: missing":                     {"model": `{"type":"BPE","vocab":{"a":0}}`},
		"tokenizer.json: model.merges: missing: a":                  {"model": `{"type":"BPE","vocab":{"a":0},"merges":null}`},
		`model.merges: there are none, yet the vocabulary has "ab"`: {"model": `{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[]}`},
		"tokenizer.json: model.vocab: missing":                      {"model": `{"type":"BPE","merges":[]}`},
		`model.merges[1]: "b" + "c"`:                                {"model": `{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"c":3},"merges":["a b","b c"]}`},
		"merge 0 (\"a\") is not two tokens":                         {"model": `{"type":"BPE","vocab":{"a":0},"merges":["a"]}`},
		`token "a" has ID 2000000000`:                               {"model": `{"type":"BPE","vocab":{"a":2000000000},"merges":[]}`},
		`token "a" has ID -1`:                                       {"model": `{"type":"BPE","vocab":{"a":-1},"merges":[]}`},
		`model.unk_token: "<unk>" is not in the vocabulary`:         {"model": `{"type":"BPE","unk_token":"<unk>","vocab":{"a":0},"merges":[]}`},
		"tokenizer.json: model: missing":                            {"model": `null`},
		`pre_tokenizer.replacement: "" is not one character`:        {"pre_tokenizer": `{"type":"Metaspace"}`},
		`post_processor.single[0]: "<x>" is not among`:              {"post_processor": `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<x>"}},{"Sequence":{"id":"A"}}]}`},
		"tokenizer.json: normalizer":                                {"normalizer": `7`},
	} {
		_, err := Parse(variant(t, parts), nil)
		var format *FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s\ngot %v", want, err)
		}
	}
	if _, err := Parse([]byte(`{"model":`), nil); err == nil {
		t.Error("a file cut off was read")
	}
	if _, err := FromFS(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "neither tokenizer.json nor tokenizer.model") {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestAddedTokensFollowTheirFlags(t *testing.T) {
	added := `[
		{"id":500,"content":"<m>","lstrip":true,"special":true},
		{"id":501,"content":"<r>","rstrip":true},
		{"id":502,"content":"cat","single_word":true},
		{"id":503,"content":"ŸŸ","normalized":true},
		{"id":504,"content":"<m>x"}]`
	tok, err := Parse(variant(t, map[string]string{"added_tokens": added, "normalizer": `{"type":"Lowercase"}`}), []byte(`{"eos_token":"<r>"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		in       string
		all      []int32 // the added tokens found
		ordinary []int32 // those found in ordinary text
		back     string
	}{
		"lstrip takes the space before":                  {"a  <m> b", []int32{500}, nil, "a<m> b"},
		"rstrip takes the space after":                   {"a <r>  b", []int32{501}, nil, "a <r>b"},
		"the longest of several wins":                    {"<m>x<m>", []int32{504, 500}, []int32{504}, "<m>x<m>"},
		"a word is found only as a word":                 {"cat cats concat cat_ cat.", []int32{502, 502}, []int32{502, 502}, "cat cats concat cat_ cat."},
		"a normalized token is found in normalized text": {"Ÿÿ ÿŸ ŸŸ", []int32{503, 503, 503}, []int32{503, 503, 503}, "ŸŸ ŸŸ ŸŸ"},
	} {
		found := func(ids []int32) (out []int32) {
			for _, id := range ids {
				if id >= 500 {
					out = append(out, id)
				}
			}
			return out
		}
		ids := tok.Encode(tt.in, false)
		if diff := cmp.Diff(tt.all, found(ids)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if diff := cmp.Diff(tt.ordinary, found(tok.EncodeOrdinary(tt.in))); diff != "" {
			t.Errorf("%s, ordinary:\n%s", name, diff)
		}
		if got := tok.Decode(ids, false); got != tt.back {
			t.Errorf("%s: decoded to %q, want %q", name, got, tt.back)
		}
	}
}

func TestInvalidUTF8IsReadWithReplacementCharacters(t *testing.T) {
	tok := trained(t)
	for in, want := range map[string]string{
		"a\xffb":               "a\ufffdb",
		"\xe4\xbd":             "\ufffd",
		"\xe4\xbdx":            "\ufffdx",
		"\xf0\x9f\xa6 \x80":    "\ufffd \ufffd",
		"\xed\xa0\x80":         "\ufffd\ufffd\ufffd",
		"\xc0\xaf\xf5\x80":     "\ufffd\ufffd\ufffd\ufffd",
		"fine \x00 \U0010ffff": "fine \x00 \U0010ffff",
	} {
		if diff := cmp.Diff(tok.Encode(want, false), tok.Encode(in, false)); diff != "" {
			t.Errorf("%q:\n%s", in, diff)
		}
	}
}

func TestLongWordsAreMergedInWindowsExactly(t *testing.T) {
	tok := trained(t)
	long := map[string]string{
		"one letter":   strings.Repeat("a", 3*window+17),
		"an alphabet":  strings.Repeat("thequickbrownfoxjumpsoverthelazydog", window/10),
		"chinese":      strings.Repeat("长文档需要长上下文", window/8),
		"spaces":       strings.Repeat(" ", 2*window+1),
		"mixed script": strings.Repeat("modelÿ长thetheht", window/5),
	}
	for name, text := range long {
		whole := &encoder{t: tok, cache: newWordCache(), merger: merger{bpe: tok.model.bpe}}
		whole.push(whole.merger.merge(whole.symbols(text)))
		windows := &encoder{t: tok, cache: newWordCache(), merger: merger{bpe: tok.model.bpe}}
		windows.mergeWindows(text, window)
		if !slices.Equal(whole.out, windows.out) {
			t.Errorf("%s: %d tokens whole, %d in windows", name, len(whole.out), len(windows.out))
		}
	}
}

func TestChunkedNormalizationChangesNothing(t *testing.T) {
	tok, err := Parse(variant(t, map[string]string{"normalizer": `{"type":"Lowercase"}`}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !tok.chunked {
		t.Fatal("not chunked")
	}
	text := strings.Repeat("The Lazy dog\n\n jumps over, 12 'S  ", chunkSize/4)
	if len(text) < 4*chunkSize/3 {
		t.Fatal("the text is one chunk")
	}
	chunked := tok.Encode(text, false)
	tok.chunked = false
	if whole := tok.Encode(text, false); !slices.Equal(whole, chunked) {
		t.Error("chunks changed the tokens")
	}
	if got := tok.Count(text); got != len(chunked) {
		t.Errorf("Count says %d, Encode gives %d", got, len(chunked))
	}
}

func TestCountingALongTextTakesLittleMemoryBesideIt(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	tok := trained(t)
	used := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, sentence := range map[string]string{"in chunks": "q zq jx v q k ", "without a place to cut": "q7 z9 x1 j3 v5 k8 "} {
		t.Run(name, func(t *testing.T) {
			text := strings.Repeat(sentence, 60<<20/len(sentence))
			runtime.GC()
			before, most := used(), uint64(0)
			done := make(chan int)
			go func() { done <- tok.Count(text) }()
			for {
				select {
				case n := <-done:
					// What is kept of a text would grow with it; chunks under way and what the collector has not seen yet do not.
					const limit = 48 << 20
					if 4*n < 2*limit {
						t.Fatalf("the text has only %d tokens: keeping them would not be seen", n)
					}
					if most > before+limit {
						t.Errorf("%d MiB beside a text of %d MiB", (most-before)>>20, len(text)>>20)
					}
					return
				case <-time.After(5 * time.Millisecond):
					most = max(most, used())
				}
			}
		})
	}
}

func TestBatchesAndConcurrentCallsAgreeWithSingleOnes(t *testing.T) {
	tok := trained(t)
	var texts []string
	for i := range 200 {
		texts = append(texts, trainTexts()[i%3][i%40:])
	}
	for i, ids := range tok.EncodeBatch(texts, true) {
		if !slices.Equal(ids, tok.Encode(texts[i], true)) {
			t.Fatalf("text %d differs", i)
		}
	}
}

func TestTheConfigurationNamesTokensAndTemplate(t *testing.T) {
	data := variant(t, nil)
	tok, err := Parse(data, []byte(`{"bos_token":{"content":"<|bos|>"},"eos_token":"<|eos|>","chat_template":[{"name":"tool","template":"T"},{"name":"default","template":"D"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	bos, _ := tok.BOS()
	eos, _ := tok.EOS()
	if got := []string{tok.Token(bos), tok.Token(eos), tok.ChatTemplate()}; !slices.Equal(got, []string{"<|bos|>", "<|eos|>", "D"}) {
		t.Errorf("got %q", got)
	}
	fromFile, err := FromFS(fstest.MapFS{"tokenizer.json": {Data: data}, "chat_template.jinja": {Data: []byte("J")}})
	if err != nil || fromFile.ChatTemplate() != "J" {
		t.Errorf("chat_template.jinja: %v", err)
	}
	if _, err := Parse(data, []byte(`{"eos_token":7}`)); err == nil || !strings.Contains(err.Error(), "tokenizer_config.json: eos_token") {
		t.Errorf("a wrong type: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(variant(f, nil), "The lazy dog <|bos|>")
	f.Add([]byte(`{"added_tokens":[{"id":3,"content":"x","normalized":true,"lstrip":true}],"normalizer":{"type":"Prepend","prepend":"▁"},"pre_tokenizer":{"type":"Metaspace","replacement":"▁"},"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]],"unk_token":"a"},"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1}]}}`), "ab x")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		tok, err := Parse(file, nil)
		if err != nil {
			return
		}
		ids := tok.Encode(text, true)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Fatalf("token %d of a vocabulary of %d", id, tok.VocabSize())
			}
		}
		tok.Decode(ids, true)
	})
}

func FuzzRoundTrip(f *testing.F) {
	tok := trained(f)
	f.Add("The lazy dog's 12 \u00a0 长\r\n")
	f.Add("\xff\xe4\xbd<|bos|>\x00")
	f.Fuzz(func(t *testing.T, text string) {
		want := decodeLossy([]byte(text))
		ids := tok.EncodeOrdinary(text)
		if got := tok.Decode(ids, false); got != want {
			t.Fatalf("%q came back as %q", want, got)
		}
		stream, streamed := tok.NewStream(false), ""
		for _, id := range ids {
			part := stream.Next(id)
			if !utf8.ValidString(part) {
				t.Fatalf("a part that is not UTF-8: %q", part)
			}
			streamed += part
		}
		if streamed += stream.Flush(); streamed != want {
			t.Fatalf("%q streamed as %q", want, streamed)
		}
		if got := tok.Count(text); got != len(ids) {
			t.Fatalf("Count says %d, there are %d", got, len(ids))
		}
	})
}
