package thudm

import (
	"errors"
	"fmt"
	"io"

	"github.com/longalign/longalign-go/datasets"
)

// Options say how a data directory is made.
type Options struct {
	// MaxLength is the length of rows and packs; default 65,536.
	MaxLength int
	// BatchSize is how many packs or rows all devices take at once: packs beyond a multiple of it are left out, and rows
	// are sorted in groups of so many; default 8.
	BatchSize int
	// Rows is the order of the sequences, and Groups of the sorted groups; nil draws them from Seed, for the published
	// shuffle has no seed. A sequence that the published code drops before it makes rows keeps its number in Rows.
	Rows, Groups []int32
	Seed         uint64
}

// Written counts what is in a data directory.
type Written struct {
	Sequences     int `json:"sequences"`
	WithoutTarget int `json:"without_target"` // dropped: no target in the first MaxLength tokens
	Rows          int `json:"rows"`           // in inputs.npy
	Sorted        int `json:"sorted"`         // in inputs_sort.npy
	Packs         int `json:"packs"`          // in inputs_pack.npy
	Packed        int `json:"packed"`         // sequences in them
}

// WriteDirectory writes all files of a data directory, each through create. The sequences themselves are not held in memory.
func WriteDirectory(create func(name string) (io.WriteCloser, error), seqs datasets.SequenceSource, o Options) (w Written, err error) {
	params := func(method datasets.Method) datasets.BatchesParams {
		return datasets.BatchesParams{Method: method, MaxLength: o.MaxLength, BatchSize: o.BatchSize, Compat: datasets.CompatTHUDM}.Defaults()
	}
	p := params(datasets.MethodSorted)
	rng := datasets.NewRand(o.Seed, 0)
	if o.Rows == nil {
		o.Rows = drawOrder(rng, seqs.Len())
	}
	w.Sequences = seqs.Len()
	if err := datasets.CheckPermutation(o.Rows, w.Sequences); err != nil {
		return w, fmt.Errorf("compat: the order of rows %w", err)
	}
	kept, err := Rows(seqs, o.Rows, p.MaxLength)
	if err != nil {
		return w, err
	}
	w.Rows, w.WithoutTarget = len(kept), w.Sequences-len(kept)
	rows := subset{seqs, kept}
	inOrder := datasets.Ascending(len(kept))
	if o.Groups == nil {
		o.Groups = drawOrder(rng, len(kept)/p.BatchSize)
	}
	lengths, err := Lengths(rows, p.MaxLength)
	if err != nil {
		return w, err
	}
	sorted, err := datasets.THUDMPlan(lengths, p, inOrder, o.Groups)
	if err != nil {
		return w, err
	}
	packed, err := datasets.THUDMPlan(lengths, params(datasets.MethodPacking), inOrder, nil)
	if err != nil {
		return w, err
	}
	w.Sorted, w.Packs, w.Packed = len(sorted.IDs), len(packed.MicroBatchEnds), len(packed.IDs)

	// Files are written in groups that are made together.
	files := func(names []string, write func(out []io.Writer) error) (err error) {
		var out []io.Writer
		for _, name := range names {
			f, failed := create(name)
			if failed != nil {
				return failed
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			out = append(out, f)
		}
		return write(out)
	}
	for suffix, order := range map[string][]int32{"": inOrder, "_sort": sorted.IDs} {
		err := files([]string{"inputs" + suffix + ".npy", "labels" + suffix + ".npy"}, func(out []io.Writer) error {
			return WriteRows(out[0], out[1], rows, order, p.MaxLength)
		})
		if err != nil {
			return w, err
		}
	}
	return w, files([]string{"inputs_pack.npy", "labels_pack.npy", "weights_pack.npy", "attention_masks_pack.json"}, func(out []io.Writer) error {
		return WritePacks(out[0], out[1], out[2], out[3], packed, rows)
	})
}

func drawOrder(rng *datasets.Rand, n int) []int32 {
	order := datasets.Ascending(n)
	datasets.Shuffle(rng, order)
	return order
}

// subset is some sequences of a source, in an order of their own.
type subset struct {
	datasets.SequenceSource
	ids []int32
}

// Len returns the number of sequences.
func (s subset) Len() int { return len(s.ids) }

// Sequence returns the sequence at a place.
func (s subset) Sequence(at int) (datasets.Sequence, error) {
	if at < 0 || at >= len(s.ids) {
		return datasets.Sequence{}, fmt.Errorf("sequence %d of %d", at, len(s.ids))
	}
	return s.SequenceSource.Sequence(int(s.ids[at]))
}
