package pytext

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// oracle answers each line, a JSON string, with what Python makes of it.
const oracle = `
import json, re, sys, unicodedata
for line in sys.stdin:
    s = json.loads(line)
    print(json.dumps({
        "lower": s.lower(), "fields": s.split(), "digits": re.findall(r"\d+", s), "line": s.lstrip("\n").split("\n")[0],
        "word": [i for i, c in enumerate(s) if re.match(r"\w", c)], "space": [i for i, c in enumerate(s) if re.match(r"\s", c)],
        "unknown": sum(unicodedata.category(c) == "Cn" for c in s)}))
`

// asPython is the oracle's answer, or ours.
type asPython struct {
	Lower          string
	Fields, Digits []string
	Line           string
	Word, Space    []int
	Unknown        int // characters that are younger than this Python
}

func ours(s string) asPython {
	a := asPython{Lower: Lower(s), Fields: Fields(s), Digits: Digits(s), Line: FirstLine(s)}
	for i, r := range []rune(s) {
		if IsWord(r) {
			a.Word = append(a.Word, i)
		}
		if IsSpace(r) {
			a.Space = append(a.Space, i)
		}
	}
	return a
}

// assigned reports whether this release's tables know r; Python's may be older or newer.
func assigned(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.C)
}

// TestEveryCharacterIsWhatPythonTakesItFor asks the machine's own Python about all characters, and about texts in which
// neighbours matter (a sigma's place in its word).
func TestEveryCharacterIsWhatPythonTakesItFor(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 on this machine")
	}
	var texts []string
	var run []rune
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if assigned(r) && (r < 0xd800 || r >= 0xe000) && (r < 0x20000 || r%97 == 0) { // beyond are ideographs and private use, all alike
			run = append(run, r)
		}
		if len(run) == 32 || r == unicode.MaxRune {
			texts, run = append(texts, string(run)), nil
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []rune("ΣΣΣςσΑβ İIiı\n\n\r\t\x1c\u0085\u2028\u3000.:·'’_-²½٣９3aZé\u0301\u00ad\u200bʰ字ǅßẞ🙂")
	for range 4000 {
		var b strings.Builder
		for range rng.IntN(12) {
			b.WriteRune(alphabet[rng.IntN(len(alphabet))])
		}
		texts = append(texts, b.String())
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", oracle)
	var in strings.Builder
	for _, s := range texts {
		line, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	compared := 0
	for _, s := range texts {
		var want asPython
		if !lines.Scan() {
			t.Fatal("Python said less than it was asked")
		}
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		if want.Unknown > 0 {
			continue
		}
		compared++
		if diff := cmp.Diff(want, ours(s), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%q: %s", s, diff)
		}
	}
	if compared < 6000 {
		t.Errorf("%d texts were compared", compared)
	}
}
