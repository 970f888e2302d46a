package tokenizer

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var trainOptions = Options{
	VocabSize: 400, SpecialTokens: []string{"<|pad|>", "<|bos|>", "<|eos|>", "<|user|>"},
	BOS: "<|bos|>", EOS: "<|eos|>", Pad: "<|pad|>",
}

func trainTexts() []string {
	return []string{
		strings.Repeat("the quick brown fox jumps over the lazy dog. ", 20),
		strings.Repeat("The model's answers don't lie 2024 times;\n\n\tfor i := range n { }\n", 10),
		strings.Repeat("长文档需要长上下文。", 8) + "\xff broken \xe4\xbd",
	}
}

func trained(t testing.TB) *Tokenizer {
	t.Helper()
	tokJSON, config, _, err := Train(slices.Values(trainTexts()), trainOptions)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(tokJSON, config)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTrainingIsDeterministic(t *testing.T) {
	a, aConfig, _, err := Train(slices.Values(trainTexts()), trainOptions)
	if err != nil {
		t.Fatal(err)
	}
	b, bConfig, _, err := Train(slices.Values(trainTexts()), trainOptions)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) || !bytes.Equal(aConfig, bConfig) {
		t.Error("two trainings on the same texts differ")
	}
}

func TestTheFirstMergesAreTheMostFrequentPairs(t *testing.T) {
	tokJSON, _, stats, err := Train(slices.Values([]string{"aaab aaab aaab ab"}), Options{VocabSize: 256 + 3})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(tokJSON, nil)
	if err != nil {
		t.Fatal(err)
	}
	// aa occurs 6 times (overlapping); then ab 4: in aa|ab the merged aa leaves a b.
	got := []string{tok.Token(256), tok.Token(257), tok.Token(258)}
	if diff := cmp.Diff([]string{"aa", "ab", "aaab"}, got); diff != "" {
		t.Error(diff)
	}
	want := TrainStats{Texts: 1, Bytes: 17, Words: 4, Distinct: 3, Merges: 3, VocabSize: 259}
	if diff := cmp.Diff(want, stats); diff != "" {
		t.Error(diff)
	}
}

func TestATrainedTokenizerRoundTripsAnyText(t *testing.T) {
	tok := trained(t)
	for _, text := range []string{"", "the lazy fox", "<|bos|> is text <|user|>", "日本語 \x00 🦙\r\n", strings.Repeat("a", 500)} {
		if got := tok.Decode(tok.EncodeOrdinary(text), true); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	bos, ok := tok.BOS()
	if got := tok.Encode("x", true); !ok || got[0] != bos || len(got) != 2 {
		t.Errorf("Encode with special tokens gave %v, BOS is %d", got, bos)
	}
	if eos, ok := tok.EOS(); !ok || eos != 2 {
		t.Errorf("EOS is %d, %v; want 2", eos, ok)
	}
}

func TestTrainingRefusesImpossibleOptions(t *testing.T) {
	for name, opts := range map[string]Options{
		"too small for the bytes":   {VocabSize: 255},
		"a special token twice":     {VocabSize: 300, SpecialTokens: []string{"<s>", "<s>"}},
		"an EOS that is not listed": {VocabSize: 300, EOS: "</s>"},
	} {
		if _, _, _, err := Train(slices.Values([]string{"x"}), opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
