package tokens

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

const ig = datasets.IgnoreIndex

// letters encodes a conversation as one token a byte; replies are targets, each with an EOS (0).
var letters = EncoderFunc(func(messages []datasets.Message) (ids, labels []int32, err error) {
	for _, m := range messages {
		if strings.Contains(m.Content, "unencodable") {
			return nil, nil, errors.New("cannot encode")
		}
		for _, b := range []byte(m.Content) {
			ids = append(ids, int32(b))
			if m.Role == datasets.RoleAssistant {
				labels = append(labels, int32(b))
			} else {
				labels = append(labels, ig)
			}
		}
		if m.Role == datasets.RoleAssistant {
			ids, labels = append(ids, 0), append(labels, 0)
		}
	}
	return ids, labels, nil
})

func talk(turns ...string) datasets.Instance {
	var i datasets.Instance
	for k, text := range turns {
		role := datasets.RoleUser
		if k%2 == 1 {
			role = datasets.RoleAssistant
		}
		i.Messages = append(i.Messages, datasets.Message{Role: role, Content: text})
	}
	return i
}

func each(instances ...datasets.Instance) iter.Seq2[datasets.Instance, error] {
	return func(yield func(datasets.Instance, error) bool) {
		for _, i := range instances {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func tokenize(t *testing.T, p datasets.TokensParams, instances ...datasets.Instance) (*Shard, datasets.TokensReport, error) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	report, err := Tokenize(context.Background(), each(instances...), 0, letters, p, w)
	if err != nil {
		return nil, report, err
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	shard, err := Open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := shard.Check(256); err != nil {
		t.Fatal(err)
	}
	return shard, report, nil
}

func TestWhatBecomesOfAnInstance(t *testing.T) {
	for name, tt := range map[string]struct {
		instance datasets.Instance
		p        datasets.TokensParams
		want     []int32 // labels of the sequence, nil if there is none
		dropped  string
		report   func(*datasets.TokensReport)
	}{
		"a fitting one is kept whole": {
			talk("ab", "cd"), datasets.TokensParams{}, []int32{ig, ig, 'c', 'd', 0}, "", nil,
		},
		"every turn of the assistant is a target": {
			talk("a", "b", "c", "d"), datasets.TokensParams{}, []int32{ig, 'b', 0, ig, 'd', 0}, "", nil,
		},
		"a cut answer is kept and counted by default": {
			talk("ab", "cdef"), datasets.TokensParams{MaxLength: 4}, []int32{ig, ig, 'c', 'd'}, "",
			func(r *datasets.TokensReport) { r.Truncated, r.CutAnswers = 1, 1 },
		},
		"a cut answer is dropped by policy": {
			talk("ab", "cdef"), datasets.TokensParams{MaxLength: 4, CutAnswers: datasets.CutAnswersDrop}, nil, DroppedCutAnswer,
			func(r *datasets.TokensReport) { r.Truncated, r.CutAnswers = 1, 1 },
		},
		"an answer cut off whole leaves nothing to train on": {
			talk("abcdef", "gh"), datasets.TokensParams{MaxLength: 4}, nil, DroppedNoTarget,
			func(r *datasets.TokensReport) { r.Truncated, r.CutAnswers = 1, 1 },
		},
		"cutting the middle saves the answer": {
			talk("abcdef", "g"), datasets.TokensParams{MaxLength: 6, OverLength: datasets.TruncateMiddle}, []int32{ig, ig, ig, ig, 'g', 0}, "",
			func(r *datasets.TokensReport) { r.Truncated = 1 },
		},
		"an over-long one is dropped by policy": {
			talk("abcdef", "g"), datasets.TokensParams{MaxLength: 6, OverLength: datasets.DropOverLength}, nil, DroppedOverLength,
			func(r *datasets.TokensReport) { r.Truncated = 1 },
		},
		"an empty reply goes with its question": {
			talk("a", "b", "c", " \u200b"), datasets.TokensParams{}, []int32{ig, 'b', 0}, "",
			func(r *datasets.TokensReport) { r.EmptyReplies = 1 },
		},
		"one without any reply is dropped": {
			talk("a", ""), datasets.TokensParams{}, nil, DroppedEmpty,
			func(r *datasets.TokensReport) { r.EmptyReplies = 1 },
		},
		"zero-width characters leave replies": {
			talk("a", "b\ufeff\u200cc"), datasets.TokensParams{}, []int32{ig, 'b', 'c', 0}, "", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			shard, report, err := tokenize(t, tt.p, tt.instance)
			if err != nil {
				t.Fatal(err)
			}
			var labels []int32
			if shard.Len() == 1 {
				s, err := shard.Sequence(0)
				if err != nil {
					t.Fatal(err)
				}
				labels = s.Labels
			}
			if diff := cmp.Diff(tt.want, labels); diff != "" {
				t.Error(diff)
			}
			want := datasets.TokensReport{Instances: 1, Sequences: shard.Len()}
			if tt.dropped != "" {
				want.Dropped = map[string]int{tt.dropped: 1}
			}
			if tt.report != nil {
				tt.report(&want)
			}
			if err := report.Ledger.Balance(); err != nil {
				t.Error(err)
			}
			want.Ledger, want.Lengths, want.Answers = report.Ledger, report.Lengths, report.Answers
			if diff := cmp.Diff(want, report); diff != "" {
				t.Error(diff)
			}
			if (CheckReport(report) == nil) != (shard.Len() > 0) {
				t.Errorf("CheckReport says %v for %d sequences", CheckReport(report), shard.Len())
			}
		})
	}
}

func TestSequencesThatAreAllCutAreTrainedOnIfAnswersAreLeft(t *testing.T) {
	for policy, want := range map[datasets.OverLength]string{
		datasets.TruncateMiddle: "",
		datasets.TruncateRight:  "every one of the 2 is longer than max_length",
		datasets.DropOverLength: "every one of the 2 is longer than max_length",
	} {
		_, report, err := tokenize(t, datasets.TokensParams{MaxLength: 4, OverLength: policy}, talk("abcdefgh", "x"), talk("ijklmnop", "y"))
		if err != nil {
			t.Fatal(err)
		}
		if !AllTruncated(report) {
			t.Errorf("%s: %+v", policy, report)
		}
		err = CheckReport(report)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrNoSequences) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v", policy, err)
		}
	}
}

func TestInstancesThatStopTheStageAreNamed(t *testing.T) {
	bad := talk("unencodable", "b")
	bad.Meta = &datasets.InstanceMeta{Document: "book.txt"}
	for name, tt := range map[string]struct {
		p    datasets.TokensParams
		i    datasets.Instance
		want string
	}{
		"encoding fails":         {datasets.TokensParams{}, bad, "instance 1 (document book.txt): cannot encode"},
		"an unknown role":        {datasets.TokensParams{}, datasets.Instance{Messages: []datasets.Message{{Role: "robot", Content: "a"}, {Role: datasets.RoleAssistant, Content: "b"}}}, `instance 1: message 0 has role "robot"`},
		"an over-long one":       {datasets.TokensParams{MaxLength: 4, OverLength: datasets.ErrorOverLength}, talk("abcdef", "g"), "set over_length: truncate-right"},
		"a cut answer":           {datasets.TokensParams{MaxLength: 4, CutAnswers: datasets.CutAnswersError}, talk("ab", "cdef"), "set cut_answers"},
		"a template never named": {datasets.TokensParams{MaxLength: 1}, talk("a", "b"), "max_length"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := tokenize(t, tt.p, talk("a", "b"), tt.i)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestShardsKeepOrderAndOriginOfManyInstances(t *testing.T) {
	var instances []datasets.Instance
	for n := range 1000 {
		answer := fmt.Sprint(n)
		if n%10 == 3 {
			answer = ""
		}
		instances = append(instances, talk("q", answer))
	}
	shard, report, err := tokenize(t, datasets.TokensParams{}, instances...)
	if err != nil {
		t.Fatal(err)
	}
	if report.Sequences != 900 || shard.Len() != 900 {
		t.Fatalf("%d sequences, %d in the shard", report.Sequences, shard.Len())
	}
	for i := range shard.Len() {
		s, err := shard.Sequence(i)
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		for _, id := range s.IDs[1 : len(s.IDs)-1] {
			text = append(text, byte(id))
		}
		if string(text) != fmt.Sprint(shard.Instance(i)) || shard.Targets(i) != len(text)+1 || shard.Length(i) != len(s.IDs) || shard.Weight(i) != 1 {
			t.Fatalf("sequence %d holds %q of instance %d, %d targets", i, text, shard.Instance(i), shard.Targets(i))
		}
	}
}

func TestSetNumbersSequencesOverShards(t *testing.T) {
	a, _, err := tokenize(t, datasets.TokensParams{}, talk("a", "b"), talk("c", "dd"))
	if err != nil {
		t.Fatal(err)
	}
	none, _, err := tokenize(t, datasets.TokensParams{}, talk("a", ""))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := tokenize(t, datasets.TokensParams{}, talk("e", "fff"))
	if err != nil {
		t.Fatal(err)
	}
	set := NewSet(a, none, b)
	if diff := cmp.Diff([]int{3, 4, 5}, set.Lengths()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{2, 3, 4}, set.Targets()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{1, 1, 1}, set.Weights()); diff != "" {
		t.Error(diff)
	}
	s, err := set.Sequence(2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{'e', 'f', 'f', 'f', 0}, s.IDs); diff != "" {
		t.Error(diff)
	}
	for _, id := range []int{-1, 3} {
		if _, err := set.Sequence(id); err == nil {
			t.Errorf("sequence %d was found", id)
		}
	}
	if NewSet().Len() != 0 {
		t.Error("an empty set has sequences")
	}
}

func TestShardsAreReadByMemoryMap(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := w.Add(datasets.Sequence{IDs: []int32{4, 5, 6}}, 7, 2.5); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "shard")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	data, unmap, err := Map(path)
	if err != nil {
		t.Fatal(err)
	}
	shard, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	s, err := shard.Sequence(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unmap(); err != nil {
		t.Fatal(err)
	}
	want := datasets.Sequence{IDs: []int32{4, 5, 6}, Labels: []int32{4, 5, 6}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if _, _, err := Map(path + "-missing"); err == nil {
		t.Error("a missing file was mapped")
	}
}

func TestWriterRefusesWhatItCannotKeep(t *testing.T) {
	for name, add := range map[string]func(*Writer) error{
		"no tokens":           func(w *Writer) error { return w.Add(datasets.Sequence{}, 0, 1) },
		"labels of other len": func(w *Writer) error { return w.Add(datasets.Sequence{IDs: []int32{1}, Labels: []int32{1, 2}}, 0, 1) },
		"negative instance":   func(w *Writer) error { return w.Add(datasets.Sequence{IDs: []int32{1}}, -1, 1) },
		"negative weight":     func(w *Writer) error { return w.Add(datasets.Sequence{IDs: []int32{1}}, 0, -1) },
	} {
		if err := add(NewWriter(&bytes.Buffer{})); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func sample(f *testing.F) []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	for n := range 3 {
		if err := w.Add(datasets.Sequence{IDs: []int32{1, 2, 3}, Labels: []int32{ig, 2, 3}}, n, 1); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

func FuzzOpen(f *testing.F) {
	good := sample(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:40])
	f.Add([]byte{})
	for _, at := range []int{0, 8, 20, len(good) - footerSize, len(good) - footerSize + 8, len(good) - footerSize - entrySize + 12} {
		bad := bytes.Clone(good)
		bad[at] ^= 0xff
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		shard, err := Open(data)
		if err != nil {
			var format *FormatError
			if !errors.As(err, &format) {
				t.Fatalf("%v is no FormatError", err)
			}
			return
		}
		for i := range shard.Len() {
			s, err := shard.Sequence(i)
			if err != nil || len(s.IDs) != shard.Length(i) {
				t.Fatal(i, err)
			}
		}
		_ = shard.Check(100)
	})
}

func TestDamagedShardsAreRefused(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for n := range 3 {
		if err := w.Add(datasets.Sequence{IDs: []int32{1, 2, 3}, Labels: []int32{ig, 2, 3}}, n, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// Cut anywhere, it cannot be opened; a flipped label or count fails the check at the latest.
	for n := range b.Len() {
		if _, err := Open(b.Bytes()[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes it opens", n, b.Len())
		}
	}
	bad := bytes.Clone(b.Bytes())
	bad[headerSize+16] = 0x9c // the second label becomes no target …
	bad[headerSize+17], bad[headerSize+18], bad[headerSize+19] = 0xff, 0xff, 0xff
	shard, err := Open(bad)
	if err != nil {
		t.Fatal(err)
	}
	if err := shard.Check(10); err == nil {
		t.Error("… and the number of targets is not missed")
	}
	good, err := Open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := good.Check(3); err == nil {
		t.Error("token 3 is in a vocabulary of 3")
	}
}
