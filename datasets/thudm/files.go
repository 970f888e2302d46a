// Package thudm writes training data as the paper's published torch trainer reads it, and reproduces how that
// code encodes, truncates and packs where this module does otherwise. It exists for comparison.
//
// Files of one data directory, all rows R × L = MaxLength, int64 unless said otherwise:
//
//	inputs.npy, labels.npy              a row a sequence, filled with PadID and -100
//	inputs_sort.npy, labels_sort.npy    the same rows in sorted groups
//	inputs_pack.npy, labels_pack.npy    a row a pack
//	weights_pack.npy                    float32, 1/N_i on the targets of sequence i
//	attention_masks_pack.json           for each pack 0, the ends of its sequences, and L
//
// What is left out, and why, is said by datasets.THUDMPlan. Two things happen in its data loader, every epoch: CutPacks.
package thudm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/longalign/longalign-go/datasets"
)

// Constants of the published code.
const (
	// PadID fills rows. The code finds a row's end as the place before the row's first smallest ID.
	PadID = 0
	// CutPacks is the number of first packs that its loader cuts to CutLength tokens while doubling their
	// weights, in every epoch.
	CutPacks  = 32
	CutLength = 32768
)

// RowLength returns the number of tokens the published code sees in a row: those before the first smallest ID
// of the row filled up to maxLength. A token 0 inside ends the row there; a full row, having no padding, has
// the length before its smallest token, usually 0 because that is BOS.
func RowLength(ids []int32, maxLength int) int {
	ids = ids[:min(len(ids), maxLength)]
	if len(ids) == 0 {
		return 0
	}
	smallest, at := int32(math.MaxInt32), 0
	for i, id := range ids {
		if id < smallest {
			smallest, at = id, i
		}
	}
	if smallest > PadID && len(ids) < maxLength {
		return len(ids)
	}
	return at
}

// Lengths returns RowLength of every sequence, for datasets.THUDMPlan.
func Lengths(seqs datasets.SequenceSource, maxLength int) ([]int, error) {
	lengths := make([]int, seqs.Len())
	for i := range lengths {
		s, err := seqs.Sequence(i)
		if err != nil {
			return nil, err
		}
		lengths[i] = RowLength(s.IDs, maxLength)
	}
	return lengths, nil
}

// Rows returns the sequences that the published code keeps, in the order given: those with a target among their
// first maxLength tokens. Others it drops without a word.
func Rows(seqs datasets.SequenceSource, order []int32, maxLength int) ([]int32, error) {
	var kept []int32
	for _, id := range order {
		s, err := seqs.Sequence(int(id))
		if err != nil {
			return nil, err
		}
		for t, label := range s.Labels {
			if t < maxLength && label != datasets.IgnoreIndex {
				kept = append(kept, id)
				break
			}
		}
	}
	return kept, nil
}

// Encode joins turns as the published code does. Every turn is a prompt (its text up to the answer) and an answer, tokenized by
// the caller; separator are the tokens of the blank line between turns. After each answer comes an EOS, but between
// turns only as a label: the input at that place is the separator's first token.
func Encode(prompts, answers [][]int32, bos []int32, separator []int32, eos int32) (datasets.Sequence, error) {
	if len(prompts) != len(answers) || len(prompts) > 1 && len(separator) == 0 {
		return datasets.Sequence{}, fmt.Errorf("compat: %d prompts, %d answers, %d separator tokens", len(prompts), len(answers), len(separator))
	}
	var s datasets.Sequence
	add := func(target bool, ids ...int32) {
		for _, id := range ids {
			s.IDs = append(s.IDs, id)
			if !target {
				id = datasets.IgnoreIndex
			}
			s.Labels = append(s.Labels, id)
		}
	}
	add(false, bos...)
	for k := range prompts {
		add(false, prompts[k]...)
		add(true, answers[k]...)
		if k+1 < len(prompts) {
			end := len(s.Labels)
			add(false, separator...)
			s.Labels[end] = eos
		}
	}
	add(true, eos)
	// An empty answer's EOS is no target.
	for t := 1; t < len(s.Labels); t++ {
		if s.Labels[t-1] == datasets.IgnoreIndex && s.Labels[t] == eos {
			s.Labels[t] = datasets.IgnoreIndex
		}
	}
	return s, nil
}

// WriteRows writes a row for each sequence in order.
func WriteRows(inputs, labels io.Writer, seqs datasets.SequenceSource, order []int32, maxLength int) error {
	in, err := newArray(inputs, "<i8", len(order), maxLength)
	if err != nil {
		return err
	}
	out, err := newArray(labels, "<i8", len(order), maxLength)
	if err != nil {
		return err
	}
	for _, id := range order {
		s, err := seqs.Sequence(int(id))
		if err != nil {
			return err
		}
		in.int64s(s.IDs[:min(len(s.IDs), maxLength)], PadID, maxLength)
		out.int64s(s.Labels[:min(len(s.Labels), maxLength)], datasets.IgnoreIndex, maxLength)
	}
	if err := in.flush(); err != nil {
		return err
	}
	return out.flush()
}

// WritePacks writes the packs of p, which THUDMPlan made, as four files.
func WritePacks(inputs, labels, weights, masks io.Writer, p datasets.Plan, seqs datasets.SequenceSource) error {
	n, length := len(p.MicroBatchEnds), p.MaxLength
	var arrays [3]*array
	for k, file := range []io.Writer{inputs, labels, weights} {
		var err error
		if arrays[k], err = newArray(file, []string{"<i8", "<i8", "<f4"}[k], n, length); err != nil {
			return err
		}
	}
	json := bufio.NewWriter(masks)
	json.WriteByte('[')
	for s := range p.Steps() {
		packs, err := p.Packs(s, visible{seqs, length}, PadID, nil)
		if err != nil {
			return err
		}
		first, _ := p.MicroBatches(s)
		for k := range packs {
			pack := &packs[k]
			arrays[0].int64s(pack.InputIDs, PadID, length)
			arrays[1].int64s(pack.Labels, datasets.IgnoreIndex, length)
			arrays[2].float32s(tokenWeights(pack), length)
			if first+k > 0 {
				json.WriteString(", ")
			}
			json.WriteByte('[')
			for _, end := range pack.CuSeqlens {
				json.WriteString(strconv.Itoa(int(end)))
				json.WriteString(", ")
			}
			json.WriteString(strconv.Itoa(length))
			json.WriteByte(']')
		}
	}
	json.WriteByte(']')
	for _, a := range arrays {
		if err := a.flush(); err != nil {
			return err
		}
	}
	if err := json.Flush(); err != nil {
		return fmt.Errorf("write attention masks: %w", err)
	}
	return nil
}

// visible gives of each sequence what the published code sees.
type visible struct {
	datasets.SequenceSource
	maxLength int
}

func (v visible) Sequence(id int) (datasets.Sequence, error) {
	s, err := v.SequenceSource.Sequence(id)
	if err != nil {
		return s, err
	}
	n := RowLength(s.IDs, v.maxLength)
	return datasets.Sequence{IDs: s.IDs[:n], Labels: s.Labels[:n]}, nil
}

// tokenWeights are 1/n on each sequence's n labelled tokens, 0 elsewhere.
func tokenWeights(pack *datasets.Pack) []float32 {
	weights := make([]float32, len(pack.Labels))
	for i := range pack.Sequences() {
		from, to := pack.CuSeqlens[i], pack.CuSeqlens[i+1]
		n := 0
		for _, l := range pack.Labels[from:to] {
			if l != datasets.IgnoreIndex {
				n++
			}
		}
		for t := from; t < to; t++ {
			if pack.Labels[t] != datasets.IgnoreIndex {
				weights[t] = 1 / float32(n)
			}
		}
	}
	return weights
}

// array writes a two-dimensional NumPy file row by row.
type array struct {
	w   *bufio.Writer
	row []byte
}

func newArray(w io.Writer, dtype string, rows, columns int) (*array, error) {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%d, %d), }", dtype, rows, columns)
	// Magic, version and header length take 10 bytes; data start at a multiple of 64.
	for (10+len(header)+1)%64 != 0 {
		header += " "
	}
	header += "\n"
	a := &array{w: bufio.NewWriterSize(w, 1<<16)}
	a.row = append(a.row, "\x93NUMPY\x01\x00"...)
	a.row = binary.LittleEndian.AppendUint16(a.row, uint16(len(header)))
	a.row = append(a.row, header...)
	if _, err := a.w.Write(a.row); err != nil {
		return nil, fmt.Errorf("write NumPy array: %w", err)
	}
	return a, nil
}

// int64s writes a row, filled up to n. A failure shows in flush.
func (a *array) int64s(values []int32, fill int64, n int) {
	a.row = a.row[:0]
	for _, v := range values {
		a.row = binary.LittleEndian.AppendUint64(a.row, uint64(int64(v)))
	}
	for range n - len(values) {
		a.row = binary.LittleEndian.AppendUint64(a.row, uint64(fill))
	}
	a.w.Write(a.row)
}

func (a *array) float32s(values []float32, n int) {
	a.row = a.row[:0]
	for _, v := range values {
		a.row = binary.LittleEndian.AppendUint32(a.row, math.Float32bits(v))
	}
	a.row = append(a.row, make([]byte, 4*(n-len(values)))...)
	a.w.Write(a.row)
}

func (a *array) flush() error {
	if err := a.w.Flush(); err != nil {
		return fmt.Errorf("write NumPy array: %w", err)
	}
	return nil
}
