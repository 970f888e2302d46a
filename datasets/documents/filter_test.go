package documents

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

// words counts tokens as words.
func words(text string) int { return len(strings.Fields(text)) }

// prose returns n distinct words of a text that the seed determines.
func prose(n int, seed uint64) string {
	r := datasets.NewRand(seed, 1)
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "w%d ", r.IntN(1e6))
	}
	return strings.TrimSpace(b.String())
}

func run(t *testing.T, p datasets.DocumentsParams, eval *Evaluation, texts ...string) ([]datasets.Document, datasets.DocumentsReport, error) {
	t.Helper()
	m := fstest.MapFS{}
	for i, text := range texts {
		m[fmt.Sprintf("%04d.txt", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	p.Sources = []datasets.DocumentSource{{Name: "test"}}
	var docs []datasets.Document
	report, err := Build(context.Background(), []Source{{DocumentSource: p.Sources[0], FS: m}}, p, words, eval, func(d datasets.Document) error {
		docs = append(docs, d)
		return nil
	})
	dropped := 0
	for _, n := range report.Dropped {
		dropped += n
	}
	if report.Kept+dropped != report.Read {
		t.Errorf("%d read, %d kept, %v dropped", report.Read, report.Kept, report.Dropped)
	}
	if len(docs) != report.Kept+report.Copies {
		t.Errorf("%d written, %d kept and %d copies", len(docs), report.Kept, report.Copies)
	}
	return docs, report, err
}

func TestWhyDocumentsAreDropped(t *testing.T) {
	a, b := prose(200, 1), prose(200, 2)
	nearly := strings.Replace(a, strings.Fields(a)[100], "changed", 1)
	half := prose(100, 3) + " " + a[:len(a)/2]
	eval := NewEvaluation(13)
	eval.Add("longbench/qasper", strings.Join(strings.Fields(b)[50:70], "  "))
	eval.Add("needle", "too short to look for")
	if eval.Short != 1 {
		t.Errorf("%d short texts, want 1", eval.Short)
	}
	for name, tt := range map[string]struct {
		p     datasets.DocumentsParams
		eval  *Evaluation
		texts []string
		want  map[string]int
		kept  int
	}{
		"nothing is wrong":                        {datasets.DocumentsParams{}, nil, []string{a, b, half}, map[string]int{}, 3},
		"empty ones":                              {datasets.DocumentsParams{}, nil, []string{a, " \n"}, map[string]int{DroppedEmpty: 1}, 1},
		"outside the bounds":                      {datasets.DocumentsParams{MinTokens: 2, MaxTokens: 200}, nil, []string{a, "x", a + " y"}, map[string]int{DroppedShort: 1, DroppedLong: 1}, 1},
		"equal but for white space":               {datasets.DocumentsParams{}, nil, []string{a, strings.ReplaceAll(a, " ", "\n")}, map[string]int{DroppedDuplicate: 1}, 1},
		"similar":                                 {datasets.DocumentsParams{}, nil, []string{a, nearly}, map[string]int{DroppedNearDuplicate: 1}, 1},
		"similar ones stay by policy":             {datasets.DocumentsParams{NearDuplicates: -1}, nil, []string{a, nearly}, map[string]int{}, 2},
		"overlapping an evaluation text":          {datasets.DocumentsParams{}, eval, []string{a, b}, map[string]int{DroppedContaminated: 1}, 1},
		"overlapping ones stay by policy":         {datasets.DocumentsParams{DecontaminationNGram: -1}, eval, []string{a, b}, map[string]int{}, 2},
		"one like a contaminated one drops alone": {datasets.DocumentsParams{}, eval, []string{b, a, nearly}, map[string]int{DroppedContaminated: 1, DroppedNearDuplicate: 1}, 1},
		"the draw":                                {datasets.DocumentsParams{MaxDocuments: 1}, nil, []string{a, b, half}, map[string]int{DroppedNotDrawn: 2}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			docs, report, err := run(t, tt.p, tt.eval, tt.texts...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, report.Dropped); diff != "" {
				t.Error(diff)
			}
			if len(docs) != tt.kept {
				t.Errorf("%d kept, want %d", len(docs), tt.kept)
			}
			if n := report.Dropped[DroppedContaminated]; n > 0 {
				if diff := cmp.Diff(map[string]int{"longbench/qasper": n}, report.Contaminated); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestHeldOutGroupsAreAFunctionOfSeedAndName(t *testing.T) {
	var texts []string
	for i := range 400 {
		texts = append(texts, prose(20, uint64(i)))
	}
	held := func(p datasets.DocumentsParams, texts ...string) (ids []string) {
		docs, report, err := run(t, p, nil, texts...)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if d.Split == datasets.SplitHeldOut {
				ids = append(ids, d.ID)
			}
		}
		if report.HeldOut != len(ids) {
			t.Errorf("%d held out, the report says %d", len(ids), report.HeldOut)
		}
		return ids
	}
	all := held(datasets.DocumentsParams{HeldOut: .25}, texts...)
	if len(all) < 70 || len(all) > 130 {
		t.Errorf("%d of 400 are held out, want about 100", len(all))
	}
	first := held(datasets.DocumentsParams{HeldOut: .25}, texts[:200]...)
	if diff := cmp.Diff(all[:len(first)], first); diff != "" {
		t.Errorf("more documents change the side of others:\n%s", diff)
	}
	if more := held(datasets.DocumentsParams{HeldOut: .5}, texts...); !containsAll(more, all) {
		t.Error("a larger share does not contain the smaller")
	}
	if cmp.Equal(all, held(datasets.DocumentsParams{HeldOut: .25, Seed: 1}, texts...)) {
		t.Error("another seed gives the same split")
	}
}

func containsAll(set, subset []string) bool {
	for _, s := range subset {
		if !slices.Contains(set, s) {
			return false
		}
	}
	return true
}

func TestDrawsAreNestedAndInOrder(t *testing.T) {
	var texts []string
	for i := range 100 {
		texts = append(texts, prose(20, uint64(i)))
	}
	drawn := func(n int) (ids []string) {
		docs, _, err := run(t, datasets.DocumentsParams{MaxDocuments: n, MaxHeldOut: 5, HeldOut: .3}, nil, texts...)
		if err != nil {
			t.Fatal(err)
		}
		var heldOut int
		for _, d := range docs {
			ids = append(ids, d.ID)
			if d.Split == datasets.SplitHeldOut {
				heldOut++
			}
		}
		if heldOut != 5 || len(ids) != n+5 {
			t.Errorf("%d drawn, %d of them held out", len(ids), heldOut)
		}
		return ids
	}
	ten, twenty := drawn(10), drawn(20)
	if !containsAll(twenty, ten) || !slices.IsSorted(twenty) {
		t.Errorf("%v does not contain %v in order", twenty, ten)
	}
}

func TestLongTrainingDocumentsAreUpsampled(t *testing.T) {
	docs, report, err := run(t, datasets.DocumentsParams{UpsampleAbove: 50, UpsampleTimes: 3, HeldOut: .4}, nil,
		prose(20, 1), prose(60, 2), prose(61, 3), prose(62, 4), prose(63, 5), prose(64, 6))
	if err != nil {
		t.Fatal(err)
	}
	copies := map[string][]int{}
	for _, d := range docs {
		copies[d.ID] = append(copies[d.ID], d.Copy)
		want := []int{0, 1, 2}
		if d.Tokens <= 50 || d.Split == datasets.SplitHeldOut {
			want = want[:1]
		}
		if len(copies[d.ID]) > len(want) {
			t.Errorf("%s of %d tokens, %s: %d copies, want %d", d.ID, d.Tokens, d.Split, len(copies[d.ID]), len(want))
		}
	}
	if report.Copies == 0 || report.HeldOut == 0 || report.Copies != 2*(report.Kept-report.HeldOut-1) {
		t.Errorf("%d copies of %d documents, %d held out", report.Copies, report.Kept, report.HeldOut)
	}
}

func TestNothingLeftSaysWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		p     datasets.DocumentsParams
		texts []string
		want  string
	}{
		"no files":      {datasets.DocumentsParams{}, nil, "0 files, 0 documents read"},
		"all too short": {datasets.DocumentsParams{MinTokens: 100}, []string{"a", "b"}, "2 too short"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := run(t, tt.p, nil, tt.texts...)
			if !errors.Is(err, ErrNoDocuments) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "check the sources") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBadInputFailsOrIsCounted(t *testing.T) {
	_, _, err := run(t, datasets.DocumentsParams{}, nil, "good text", "bad\x00")
	var input *InputError
	if !errors.As(err, &input) || input.File != "0001.txt" {
		t.Errorf("got %v", err)
	}
	docs, report, err := run(t, datasets.DocumentsParams{BadInput: datasets.BadInputSkip}, nil, "good text", "bad\x00")
	if err != nil || len(docs) != 1 {
		t.Fatal(docs, err)
	}
	if report.Dropped[DroppedUnreadable] != 1 || len(report.BadInput) != 1 || !strings.HasPrefix(report.BadInput[0], "0001.txt: has a NUL") {
		t.Errorf("got %+v", report)
	}
}

func TestAWriteThatFailsEndsTheStage(t *testing.T) {
	full := errors.New("disk full")
	p := datasets.DocumentsParams{Sources: []datasets.DocumentSource{{}}}
	_, err := Build(context.Background(), []Source{{DocumentSource: p.Sources[0], FS: fstest.MapFS{"a.txt": {Data: []byte("x")}}}}, p, words, nil, func(datasets.Document) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestAMissingDirectoryIsNamed(t *testing.T) {
	p := datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Name: "books"}}}
	_, err := Build(context.Background(), []Source{{DocumentSource: p.Sources[0], FS: missing{}}}, p, words, nil, func(datasets.Document) error { return nil })
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "source books") {
		t.Errorf("got %v", err)
	}
}

type missing struct{}

func (missing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func TestEvaluationTextsAreReadLikeDocuments(t *testing.T) {
	source := datasets.DocumentsParams{Decontaminate: []datasets.DocumentSource{{Name: "longbench", TextField: "context"}}}.Defaults().Decontaminate[0]
	text := prose(40, 9)
	eval, err := ReadEvaluation(context.Background(), []Source{{DocumentSource: source, FS: files(map[string]string{"a.jsonl": fmt.Sprintf("{\"context\":%q}\n", text)})}}, 13, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	_, report, err := run(t, datasets.DocumentsParams{}, eval, prose(50, 10), prose(50, 11)+" "+text[20:])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"longbench": 1}, report.Contaminated); diff != "" {
		t.Error(diff)
	}
	for name, content := range map[string]string{"a.jsonl": "{\"context\":5}", "a.png": ""} {
		if _, err := ReadEvaluation(context.Background(), []Source{{DocumentSource: source, FS: files(map[string]string{name: content})}}, 13, 1<<20); err == nil || !strings.Contains(err.Error(), "evaluation texts of longbench") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestMinHashEstimatesSimilarity(t *testing.T) {
	base := prose(2000, 1)
	for _, changed := range []int{0, 20, 60, 200} {
		words := strings.Fields(base)
		for i := range changed {
			words[i*len(words)/changed] = fmt.Sprintf("other%d", i)
		}
		other := strings.Join(words, " ")
		grams := func(text string) map[uint64]bool {
			set := map[uint64]bool{}
			nGrams(text, shingleWords, func(h uint64) bool { set[h] = true; return true })
			return set
		}
		a, b := grams(base), grams(other)
		shared := 0
		for h := range a {
			if b[h] {
				shared++
			}
		}
		exact := float64(shared) / float64(len(a)+len(b)-shared)
		sa, _ := minHash(base)
		sb, _ := minHash(other)
		// Four standard errors of 128 draws.
		if got := sa.similarity(&sb); math.Abs(got-exact) > 4*math.Sqrt(exact*(1-exact)/128)+1e-9 {
			t.Errorf("%d words changed: estimated %.3f, it is %.3f", changed, got, exact)
		}
	}
}

func wordHashes(text string) (words []uint64) {
	eachWord(text, func(w uint64) bool {
		words = append(words, w)
		return true
	})
	return words
}

func TestNGramsAreThoseOfAllWordsAcrossBlocks(t *testing.T) {
	for _, n := range []int{1, 5, 13} {
		for _, length := range []int{0, n - 1, n, n + 1, gramBlock, gramBlock + n, 3*gramBlock + 7} {
			text := prose(length, uint64(n))
			words := wordHashes(text)
			var want, got []uint64
			for i := 0; i+n <= len(words); i++ {
				h := uint64(fnvOffset)
				for _, w := range words[i : i+n] {
					h = mix(h ^ w)
				}
				want = append(want, h)
			}
			seen := nGrams(text, n, func(h uint64) bool {
				got = append(got, h)
				return true
			})
			if seen != len(words) || !slices.Equal(got, want) {
				t.Errorf("runs of %d of %d words: %d runs of %d words, want %d", n, len(words), len(got), seen, len(want))
			}
		}
	}
}

func TestALongTextIsLookedAtInLittleMemoryBesideIt(t *testing.T) {
	text := prose(400_000, 1)
	l := newLooker(datasets.DocumentsParams{}.Defaults(), func(text string) int { return len(text) }, NewEvaluation(13), nil)
	l.eval.Add("benchmark", prose(100, 2))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	found := l.look(datasets.Document{Text: text})
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<16 || found.Signature == nil {
		t.Errorf("%d bytes beside a text of %d", got, len(text))
	}
	if want := sha256.Sum256([]byte(strings.Join(strings.Fields(" a \t\n b  c\u00a0"), " "))); !bytes.Equal(spaceless(" a \t\n b  c\u00a0"), want[:16]) {
		t.Error("the digest is not that of the text with single spaces")
	}
}

func TestWordsOfManyScripts(t *testing.T) {
	same := [][2]string{{"Hello, World!", "hello world"}, {"机器学习", "机 器 学 习"}, {"Straße ÉCOLE", "straße école"}}
	for _, s := range same {
		if diff := cmp.Diff(wordHashes(s[0]), wordHashes(s[1])); diff != "" {
			t.Errorf("%q and %q have other words", s[0], s[1])
		}
	}
	for text, want := range map[string]int{"": 0, "...": 0, "a b2 c": 3, "机器 learning 学习": 5} {
		if got := len(wordHashes(text)); got != want {
			t.Errorf("%q has %d words, want %d", text, got, want)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	text := prose(2000, 1)
	b.SetBytes(int64(len(text)))
	near := newNearIndex(0.8)
	for b.Loop() {
		s, _ := minHash(text)
		near.add(&s)
	}
}

func TestDecisionsDoNotDependOnWhichDocumentIsReadyFirst(t *testing.T) {
	var texts []string
	for i := range 60 { // each is followed by itself, and by itself with a word more
		text := prose(200, uint64(i/3))
		if i%3 == 2 {
			text += " more"
		}
		texts = append(texts, text)
	}
	m := fstest.MapFS{}
	for i, text := range texts {
		m[fmt.Sprintf("%04d.txt", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	p := datasets.DocumentsParams{Sources: []datasets.DocumentSource{{Name: "test"}}}
	slowFirst := func(text string) int {
		if !strings.HasSuffix(text, " more") {
			time.Sleep(time.Millisecond)
		}
		return words(text)
	}
	var kept []string
	report, err := Build(context.Background(), []Source{{DocumentSource: p.Sources[0], FS: m}}, p, slowFirst, nil, func(d datasets.Document) error {
		kept = append(kept, d.ID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := 0; i < 60; i += 3 {
		want = append(want, fmt.Sprintf("%04d.txt", i))
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("of three alike the first is kept (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{DroppedDuplicate: 20, DroppedNearDuplicate: 20}, report.Dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}
