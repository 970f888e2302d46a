package tokenizer

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/testenv/refdata"
)

// publicTokenizer loads a tokenizer that the acceptance checks have downloaded, or skips.
func publicTokenizer(t testing.TB, name string) *Tokenizer {
	t.Helper()
	cache := os.Getenv("CHECK_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Skip(err)
		}
		cache = filepath.Join(home, ".cache", "longalign-check")
	}
	dir := filepath.Join(cache, "npm", "tokenizer-"+name, "package", "models")
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Skipf("tokenizer %s not downloaded: %v", name, err)
	}
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

type referenceLine struct {
	Text        string
	IDs         []int32 `json:"ids"`
	WithSpecial []int32 `json:"ids_with_special"`
	Decoded     string
}

func readJSONLines[T any](t testing.TB, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIDsAndTextEqualTheReferenceTokenizers(t *testing.T) {
	for name, dir := range map[string]string{"mistral": "llama2", "llama3": "llama3", "qwen3": "qwen3"} {
		t.Run(name, func(t *testing.T) {
			lines := readJSONLines[referenceLine](t, refdata.Path(t, "cases", "tokenizers", name+".jsonl"))
			tok := publicTokenizer(t, dir)
			for _, l := range lines {
				got := referenceLine{l.Text, tok.Encode(l.Text, false), tok.Encode(l.Text, true), tok.Decode(l.IDs, false)}
				if diff := cmp.Diff(l, got); diff != "" {
					t.Errorf("%q (-reference +ours):\n%s", l.Text, diff)
				}
				stream, streamed := tok.NewStream(false), ""
				for _, id := range l.IDs {
					streamed += stream.Next(id)
				}
				if streamed += stream.Flush(); streamed != l.Decoded {
					t.Errorf("streamed %q, want %q", streamed, l.Decoded)
				}
			}
		})
	}
}

func TestTheTinyLlamaDecodesItsGreedyText(t *testing.T) {
	dir := refdata.Path(t, "cases", "stories260K")
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "greedy.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		IDs  []int32 `json:"greedy_ids"`
		Text string  `json:"text"`
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Text, tok.Decode(want.IDs, true)); diff != "" {
		t.Error(diff)
	}
	if bos, ok := tok.BOS(); !ok || bos != 1 {
		t.Errorf("BOS is %d, %v; want 1", bos, ok)
	}
}
