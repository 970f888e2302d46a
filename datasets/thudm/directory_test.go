package thudm

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

type closing struct{ *bytes.Buffer }

func (closing) Close() error { return nil }

func directory(t *testing.T, seqs datasets.SequenceSource, o Options) (map[string]*bytes.Buffer, Written) {
	t.Helper()
	files := map[string]*bytes.Buffer{}
	w, err := WriteDirectory(func(name string) (io.WriteCloser, error) {
		files[name] = &bytes.Buffer{}
		return closing{files[name]}, nil
	}, seqs, o)
	if err != nil {
		t.Fatal(err)
	}
	return files, w
}

// The orders that the published code draws without a seed are given; everything else follows.
func TestADirectoryFollowsFromTheSequencesAndTwoOrders(t *testing.T) {
	seq := func(first int32, prompt, answer int) datasets.Sequence {
		s := datasets.Sequence{}
		for i := range prompt + answer {
			s.IDs = append(s.IDs, first+int32(i))
			s.Labels = append(s.Labels, ig)
			if i >= prompt {
				s.Labels[i] = s.IDs[i]
			}
		}
		return s
	}
	seqs := datasets.Sequences{seq(10, 2, 1), seq(20, 1, 1), seq(30, 9, 3), seq(40, 1, 3), seq(50, 2, 2)} // the third's answer is cut off
	files, w := directory(t, seqs, Options{MaxLength: 8, BatchSize: 1, Rows: []int32{4, 2, 1, 0, 3}, Groups: []int32{3, 0, 2, 1}})
	if diff := cmp.Diff(Written{Sequences: 5, WithoutTarget: 1, Rows: 4, Sorted: 4, Packs: 1, Packed: 2}, w); diff != "" {
		t.Error(diff)
	}
	firsts := func(name string) (out []int64) {
		rows := values[int64](t, *files[name])
		for k := range len(rows) / 8 {
			out = append(out, rows[k*8])
		}
		return out
	}
	for name, want := range map[string][]int64{
		"inputs.npy":      {50, 20, 10, 40},
		"inputs_sort.npy": {40, 20, 50, 10}, // by length 20 10 50 40, in groups of one
		"inputs_pack.npy": {50},             // with 20; the last pack, of 10 and 40, is never written
	} {
		if diff := cmp.Diff(want, firsts(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if got, want := files["attention_masks_pack.json"].String(), "[[0, 4, 6, 8]]"; got != want {
		t.Errorf("packs end at %s, want %s", got, want)
	}
	weights := values[float32](t, *files["weights_pack.npy"])
	if diff := cmp.Diff([]float32{0, 0, .5, .5, 0, 1, 0, 0}, weights[:8]); diff != "" {
		t.Errorf("weights: %s", diff)
	}
}

func TestDrawnOrdersDependOnTheSeedAlone(t *testing.T) {
	var seqs datasets.Sequences
	for i := range int32(40) {
		seqs = append(seqs, datasets.Sequence{IDs: []int32{i + 1, 99}, Labels: []int32{ig, 99}})
	}
	at := func(seed uint64) []byte {
		files, _ := directory(t, seqs, Options{MaxLength: 16, BatchSize: 2, Seed: seed})
		return slices.Concat(files["inputs.npy"].Bytes(), files["inputs_sort.npy"].Bytes())
	}
	if !bytes.Equal(at(1), at(1)) || bytes.Equal(at(1), at(2)) {
		t.Error("the files are not a function of the seed")
	}
}

func TestAnOrderThatIsNoneIsRefused(t *testing.T) {
	seqs := datasets.Sequences{{IDs: []int32{1, 2}, Labels: []int32{ig, 2}}}
	_, err := WriteDirectory(func(string) (io.WriteCloser, error) { return closing{&bytes.Buffer{}}, nil }, seqs, Options{Rows: []int32{1}})
	if err == nil {
		t.Error("the order 1 of one sequence was taken")
	}
}
