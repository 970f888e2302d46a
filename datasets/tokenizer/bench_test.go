package tokenizer

import (
	"strings"
	"testing"

	"github.com/longalign/longalign-go/testenv/refdata"
)

// benchTexts are real texts beside the repository: English news, Chinese articles.
func benchTexts(b *testing.B) map[string]string {
	type row struct{ Context string }
	join := func(file string) string {
		var s strings.Builder
		for _, r := range readJSONLines[row](b, refdata.Path(b, "cases", "inputs", file)) {
			s.WriteString(r.Context)
		}
		return s.String()
	}
	return map[string]string{
		"english": join("multi_news.jsonl"),
		"chinese": join("multifieldqa_zh.jsonl"),
		"code":    strings.Repeat("func (t *Tokenizer) Encode(text string, special bool) []int32 {\n\te := t.encoder()\n\tfor i := 0; i < len(text); i++ {\n\t\tx[i] += y[2*i] // sum of pairs\n\t}\n\treturn e.ids(\"done\", 0x1F)\n}\n\n", 5000),
	}
}

func BenchmarkEncode(b *testing.B) {
	texts := benchTexts(b)
	for _, name := range []string{"llama3", "qwen3", "llama2"} {
		tok := publicTokenizer(b, name)
		for lang, text := range texts {
			b.Run(name+"/"+lang, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					tok.Count(text)
				}
			})
		}
	}
}

// BenchmarkLongText counts one text of 256 MiB: with -cpu 1,2,… it shows what more cores bring.
func BenchmarkLongText(b *testing.B) {
	tok := publicTokenizer(b, "llama3")
	code := benchTexts(b)["english"]
	text := strings.Repeat(code, 256<<20/len(code))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Count(text)
	}
}

func BenchmarkLoad(b *testing.B) {
	publicTokenizer(b, "llama3")
	for b.Loop() {
		publicTokenizer(b, "llama3")
	}
}

func BenchmarkTrain(b *testing.B) {
	text := benchTexts(b)["english"]
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, _, _, err := Train(func(yield func(string) bool) { yield(text) }, Options{VocabSize: 256 + 2048}); err != nil {
			b.Fatal(err)
		}
	}
}
