package needle

import (
	"math"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/testenv/refdata"
)

// plain is a model's tokenizer without special tokens, as the questions stage gives it to Load.
type plain struct{ *tokenizer.Tokenizer }

func (t plain) Encode(text string) []int32 { return t.EncodeOrdinary(text) }
func (t plain) Decode(ids []int32) string  { return t.Tokenizer.Decode(ids, true) }
func prose(sentence string, n int) string  { return strings.Repeat(sentence, n) }

// A Llama's own tokenizer, of SentencePiece's kind with byte tokens, on texts without a line break.
func TestNeedleFindsSentenceEndsWithALlamasTokenizer(t *testing.T) {
	tok, err := tokenizer.Load(refdata.Path(t, "cases", "stories260K"))
	if err != nil {
		t.Fatal(err)
	}
	test := paper(t)
	for name, text := range map[string]string{
		"English": prose("Once upon a time Dr. Lee had a red ball. She liked to play with it. \"Look!\" said Tom. It was late. ", 100),
		"Chinese": prose("从前有一个女孩。她有一个红球！", 100),
	} {
		h := load(t, plain{tok}, text, 2000)
		for _, depth := range []float64{0.1, 0.28, 0.5, 0.81, 0.9} {
			p, err := h.Place(test, Cell{Length: 2000, Depth: depth})
			if err != nil {
				t.Fatal(name, err)
			}
			before, _, _ := strings.Cut(p.Context, "\n"+test.Needle+"\n")
			mark := strings.TrimRight(before, " \"")
			if tokens := 2000 - p.ActualTokens; tokens < -10 || tokens > 10 || strings.Contains(p.Context, "\ufffd") {
				t.Errorf("%s, depth %v: %d tokens of text", name, depth, p.ActualTokens)
			}
			if math.Abs(p.ActualDepth-depth) > 0.03 || !(strings.HasSuffix(mark, ".") || strings.HasSuffix(mark, "。") || strings.HasSuffix(mark, "！")) || strings.HasSuffix(mark, "Dr.") {
				t.Errorf("%s, depth %v: at %v after …%q", name, depth, p.ActualDepth, before[max(0, len(before)-30):])
			}
		}
	}
}
