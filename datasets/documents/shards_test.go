package documents

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

// TestGroupsOfFilesMakeWhatOneReadingMakes looks at files in groups, writes the facts as a store would hold them, and decides.
func TestGroupsOfFilesMakeWhatOneReadingMakes(t *testing.T) {
	first, second := fstest.MapFS{}, fstest.MapFS{}
	for i := range 12 {
		text := prose(60, uint64(i%9)) // three are duplicates
		if i == 7 {
			text = strings.Replace(prose(60, 3), " ", " changed ", 1)
		}
		first[fmt.Sprintf("%02d.txt", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	first["05a.jsonl"] = &fstest.MapFile{Data: []byte("{\n{\"text\":\"\\u2028 <one> & two\"}\n{\"text\":\" \"}\n")}
	second["0.jsonl"] = &fstest.MapFile{Data: []byte("{\"text\":" + string(mustJSON(t, prose(80, 50))) + "}\nbroken\n{\"text\":" + string(mustJSON(t, prose(60, 2))) + "}\n")}
	second["1.txt"] = &fstest.MapFile{Data: []byte("a\x00b")}
	eval := NewEvaluation(13)
	eval.Add("longbench", prose(80, 50))
	for name, p := range map[string]datasets.DocumentsParams{
		"all rules":                     {HeldOut: .3, UpsampleAbove: 59, UpsampleTimes: 3, MinTokens: 2},
		"drawn":                         {MaxDocuments: 3, MaxHeldOut: 1, HeldOut: .3},
		"near duplicates are kept":      {NearDuplicates: -1},
		"nothing is long enough":        {MinTokens: 1000},
		"the first bad input ends it":   {BadInput: datasets.BadInputFail},
		"overlaps with no one's a word": {DecontaminationNGram: -1},
	} {
		p.Sources = []datasets.DocumentSource{{Name: "first"}, {Name: "second"}}
		if p.BadInput == "" {
			p.BadInput = datasets.BadInputSkip
		}
		sources := []Source{{FS: first}, {FS: second}}
		var want, got []datasets.Document
		wantReport, wantErr := Build(t.Context(), sources, p, words, eval, func(d datasets.Document) error { want = append(want, d); return nil })
		var entries [][]Entry
		for i, s := range sources {
			e, err := Entries(t.Context(), s)
			if err == nil {
				err = Hash(t.Context(), sources[i], e)
			}
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		for _, bytes := range []int64{0, 1000, 1 << 30} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, bytes), func(t *testing.T) {
				got = nil
				groups := Groups(entries, bytes)
				if n := map[int64]int{0: 15, 1 << 30: 2}[bytes]; n > 0 && len(groups) != n {
					t.Errorf("%d groups, want %d", len(groups), n)
				}
				var reports []datasets.DocumentsReport
				var facts [][]byte
				for _, g := range groups {
					r, err := Look(t.Context(), sources, []Group{g}, p, words, eval, func(f Facts) error {
						facts = append(facts, mustJSON(t, f))
						return nil
					})
					if err != nil {
						if wantErr == nil || err.Error() != wantErr.Error() {
							t.Errorf("got %v, want %v", err, wantErr)
						}
						return
					}
					reports = append(reports, r)
				}
				report, err := Decide(p, reports, func(yield func(Facts, error) bool) {
					for _, raw := range facts {
						var f Facts
						if err := json.Unmarshal(raw, &f); !yield(f, err) {
							return
						}
					}
				}, func(d datasets.Document) error { got = append(got, d); return nil })
				if fmt.Sprint(err) != fmt.Sprint(wantErr) {
					t.Errorf("got %v, want %v", err, wantErr)
				}
				if diff := cmp.Diff(wantReport, report); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFileThatChangedSinceItWasHashedIsNotLookedAt(t *testing.T) {
	fsys := fstest.MapFS{"a.txt": {Data: []byte("one")}}
	s := Source{DocumentSource: datasets.DocumentSource{Name: "s"}, FS: fsys}
	entries, err := Entries(t.Context(), s)
	if err == nil {
		err = Hash(t.Context(), s, entries)
	}
	if err != nil {
		t.Fatal(err)
	}
	fsys["a.txt"] = &fstest.MapFile{Data: []byte("two")}
	_, err = Look(t.Context(), []Source{s}, Groups([][]Entry{entries}, 0), datasets.DocumentsParams{Sources: []datasets.DocumentSource{s.DocumentSource}}, words, nil,
		func(Facts) error { t.Error("it was"); return nil })
	if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "a.txt") {
		t.Errorf("got %v", err)
	}
}
