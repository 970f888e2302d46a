package thudm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

const ig = datasets.IgnoreIndex

func TestRowLengthIsWhatThePaddingShows(t *testing.T) {
	for name, tt := range map[string]struct {
		ids  []int32
		want int
	}{
		"a row ends where its padding begins":               {[]int32{1, 5, 6}, 3},
		"a token 0 ends it":                                 {[]int32{1, 5, 0, 6}, 2},
		"a full row that starts with BOS has no length":     {[]int32{1, 5, 6, 7, 8}, 0},
		"a full row without BOS ends at its smallest token": {[]int32{9, 5, 2, 7, 8}, 2},
		"an over-long row is full":                          {[]int32{1, 5, 6, 7, 8, 9}, 0},
		"an empty row is empty":                             {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := RowLength(tt.ids, 5); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestRowsWhoseAnswerWasCutOffVanish(t *testing.T) {
	seqs := datasets.Sequences{
		{IDs: []int32{1, 2, 3}, Labels: []int32{ig, ig, 3}},
		{IDs: []int32{1, 2, 3, 4, 5}, Labels: []int32{ig, ig, ig, ig, 5}},
	}
	got, err := Rows(seqs, []int32{1, 0}, 4)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{0}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheEOSBetweenTurnsIsOnlyALabel(t *testing.T) {
	got, err := Encode([][]int32{{10, 11}, {12}}, [][]int32{{20}, {21}}, []int32{1}, []int32{13, 13}, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := datasets.Sequence{
		IDs:    []int32{1, 10, 11, 20, 13, 13, 12, 21, 2},
		Labels: []int32{ig, ig, ig, 20, 2, ig, ig, 21, 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	empty, err := Encode([][]int32{{10}, {12}}, [][]int32{{}, {21}}, nil, []int32{13}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{ig, ig, ig, 21, 2}, empty.Labels); diff != "" {
		t.Errorf("the EOS of an empty answer is a target:\n%s", diff)
	}
}

// The bytes were compared with files that the published code wrote from the same rows and permutations.
func TestFilesAreThePublishedFormat(t *testing.T) {
	seqs := datasets.Sequences{
		{IDs: []int32{1, 5, 6}, Labels: []int32{ig, 5, 6}},
		{IDs: []int32{1, 7}, Labels: []int32{ig, 7}},
		{IDs: []int32{1, 8, 9, 9}, Labels: []int32{ig, ig, ig, ig}},
		{IDs: []int32{1, 8, 9, 9}, Labels: []int32{ig, ig, ig, 9}},
	}
	lengths, err := Lengths(seqs, 8)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := datasets.THUDMPlan(lengths, datasets.BatchesParams{MaxLength: 8, BatchSize: 1}, []int32{0, 1, 2, 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var inputs, labels, weights, masks bytes.Buffer
	if err := WritePacks(&inputs, &labels, &weights, &masks, plan, seqs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("[[0, 3, 5, 8], [0, 4, 8]]", masks.String()); diff != "" {
		t.Error(diff)
	}
	header := "{'descr': '<i8', 'fortran_order': False, 'shape': (2, 8), }"
	if !strings.HasPrefix(inputs.String(), "\x93NUMPY\x01\x00\x76\x00"+header) || inputs.Len() != 128+2*8*8 {
		t.Errorf("inputs start with %q and have %d bytes", inputs.String()[:80], inputs.Len())
	}
	if diff := cmp.Diff([]int64{1, 5, 6, 1, 7, 0, 0, 0, 1, 8, 9, 9, 0, 0, 0, 0}, values[int64](t, inputs)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{ig, 5, 6, ig, 7, ig, ig, ig, ig, ig, ig, ig, ig, ig, ig, ig}, values[int64](t, labels)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float32{0, .5, .5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, values[float32](t, weights)); diff != "" {
		t.Error(diff)
	}
	var rows, rowLabels bytes.Buffer
	if err := WriteRows(&rows, &rowLabels, seqs, []int32{1, 0}, 3); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{1, 7, 0, 1, 5, 6}, values[int64](t, rows)); diff != "" {
		t.Error(diff)
	}
}

func values[T any](t *testing.T, file bytes.Buffer) []T {
	t.Helper()
	data := file.Bytes()[128:]
	var zero T
	v := make([]T, len(data)/binary.Size(zero))
	if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTheFirstPacksAreCutAndDoubledInEveryEpoch(t *testing.T) {
	pack := Loaded{InputIDs: make([]int32, 65536), Labels: make([]int32, 65536), Weights: make([]float32, 65536), Ends: []int32{0, 30000, 40000, 65536}}
	pack.Weights[32767], pack.Weights[32768] = 1, 1
	for range 2 { // epochs
		got := Load(CutPacks-1, pack)
		if len(got.InputIDs) != 32768 || len(got.Labels) != 32768 || got.Weights[32767] != 2 {
			t.Errorf("%d tokens, weight %v", len(got.InputIDs), got.Weights[32767])
		}
		if diff := cmp.Diff([]int32{0, 30000, 32768}, got.Ends); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(pack, Load(CutPacks, pack)); diff != "" {
		t.Error(diff)
	}
}

func TestAblationsTrainOnEverything(t *testing.T) {
	for _, suite := range []string{"0k", "5k", "10k"} {
		if short, long := Suite(suite, 100, 10); short != 100 || long != 10 {
			t.Errorf("%s: %d short and %d long", suite, short, long)
		}
	}
}
