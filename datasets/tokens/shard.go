// Package tokens turns instances into token sequences and keeps those in shards.
//
// Order: clean (zero-width characters, empty replies) → encode (template and tokenizer) → truncate → shard.
//
// A shard is one file, written front to back and read by memory map. All numbers are little-endian.
//
//	header   8 bytes magic "LONGTOK1", uint32 version (1), uint32 zero
//	data     for each sequence its token IDs, then its labels, uint32 each; label -100 is 0xffffff9c
//	index    for each sequence 24 bytes: uint64 offset of its data, uint32 length in tokens,
//	         uint32 targets, uint32 number of its instance, float32 weight
//	footer   uint64 offset of the index, uint64 sequences, uint64 tokens, 8 bytes magic
//
// Lengths are tokens. A sequence's data starts where the one before ends.
package tokens

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/longalign/longalign-go/datasets"
)

const (
	magic      = "LONGTOK1"
	version    = 1
	headerSize = 16
	entrySize  = 24
	footerSize = 32
)

// FormatError is a shard that cannot be read.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string {
	return "token shard: " + e.Reason + "; it is damaged or no shard: run the tokens stage again"
}

func formatError(format string, args ...any) error {
	return &FormatError{fmt.Sprintf(format, args...)}
}

// Writer writes one shard. It keeps only the index in memory.
type Writer struct {
	w      *bufio.Writer
	index  []byte
	offset uint64
	tokens uint64
	buffer []byte
	err    error
}

// NewWriter starts a shard on w.
func NewWriter(w io.Writer) *Writer {
	s := &Writer{w: bufio.NewWriterSize(w, 1<<18), offset: headerSize}
	header := append(make([]byte, 0, headerSize), magic...)
	header = binary.LittleEndian.AppendUint32(header, version)
	header = binary.LittleEndian.AppendUint32(header, 0)
	_, s.err = s.w.Write(header)
	return s
}

// Add appends a sequence made from the instance of that number.
func (s *Writer) Add(seq datasets.Sequence, instance int, weight float64) error {
	switch {
	case s.err != nil:
		return fmt.Errorf("write token shard: %w", s.err)
	case len(seq.IDs) == 0 || len(seq.IDs) > math.MaxInt32:
		return fmt.Errorf("write token shard: instance %d has %d tokens", instance, len(seq.IDs))
	case seq.Labels != nil && len(seq.Labels) != len(seq.IDs):
		return fmt.Errorf("write token shard: instance %d has %d tokens and %d labels", instance, len(seq.IDs), len(seq.Labels))
	case instance < 0 || instance > math.MaxUint32:
		return fmt.Errorf("write token shard: instance %d is out of range", instance)
	case !(weight >= 0 && weight <= math.MaxFloat32):
		return fmt.Errorf("write token shard: instance %d has weight %v", instance, weight)
	}
	labels := seq.Labels
	if labels == nil {
		labels = seq.IDs
	}
	s.buffer = s.buffer[:0]
	for _, v := range [][]int32{seq.IDs, labels} {
		for _, t := range v {
			s.buffer = binary.LittleEndian.AppendUint32(s.buffer, uint32(t))
		}
	}
	if _, s.err = s.w.Write(s.buffer); s.err != nil {
		return fmt.Errorf("write token shard: %w", s.err)
	}
	s.index = binary.LittleEndian.AppendUint64(s.index, s.offset)
	s.index = binary.LittleEndian.AppendUint32(s.index, uint32(len(seq.IDs)))
	s.index = binary.LittleEndian.AppendUint32(s.index, uint32(seq.Targets()))
	s.index = binary.LittleEndian.AppendUint32(s.index, uint32(instance))
	s.index = binary.LittleEndian.AppendUint32(s.index, math.Float32bits(float32(weight)))
	s.offset += uint64(len(s.buffer))
	s.tokens += uint64(len(seq.IDs))
	return nil
}

// Close writes the index and the footer. It does not close the underlying writer.
func (s *Writer) Close() error {
	if s.err != nil {
		return fmt.Errorf("write token shard: %w", s.err)
	}
	footer := binary.LittleEndian.AppendUint64(nil, s.offset)
	footer = binary.LittleEndian.AppendUint64(footer, uint64(len(s.index)/entrySize))
	footer = binary.LittleEndian.AppendUint64(footer, s.tokens)
	footer = append(footer, magic...)
	for _, b := range [][]byte{s.index, footer} {
		if _, err := s.w.Write(b); err != nil {
			return fmt.Errorf("write token shard: %w", err)
		}
	}
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("write token shard: %w", err)
	}
	return nil
}

// Shard reads a shard. It is safe for concurrent use.
type Shard struct {
	data  []byte      // header and tokens, usually a memory map; nil where they are read when asked for
	from  io.ReaderAt // the shard, where data is nil
	index []byte
}

// Open checks the structure of a shard and gives access to it. It reads the index, not
// the tokens; data must stay valid while the shard is used.
func Open(data []byte) (*Shard, error) {
	s, err := OpenAt(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	end := len(data) - footerSize
	s.from, s.index = nil, data[end-len(s.index):end]
	s.data = data[: end-len(s.index) : end-len(s.index)]
	return s, nil
}

// OpenAt is Open for a shard of size bytes that is elsewhere: only its index is read into memory, and a sequence's tokens when they are
// asked for. from must stay valid while the shard is used.
func OpenAt(from io.ReaderAt, size int64) (*Shard, error) {
	if size < headerSize+footerSize {
		return nil, formatError("%d bytes are too few", size)
	}
	header, footer := make([]byte, headerSize), make([]byte, footerSize)
	if err := readAt(from, header, 0); err != nil {
		return nil, err
	}
	if err := readAt(from, footer, size-footerSize); err != nil {
		return nil, err
	}
	if string(header[:8]) != magic || string(footer[24:]) != magic {
		return nil, formatError("the magic %q is missing", magic)
	}
	if v := binary.LittleEndian.Uint32(header[8:]); v != version {
		return nil, formatError("version %d is not known, only %d", v, version)
	}
	at, n, tokens := binary.LittleEndian.Uint64(footer), binary.LittleEndian.Uint64(footer[8:]), binary.LittleEndian.Uint64(footer[16:])
	end := uint64(size) - footerSize
	if at < headerSize || at > end || (end-at)%entrySize != 0 || (end-at)/entrySize != n {
		return nil, formatError("the index of %d sequences does not fit into %d bytes from %d", n, size, at)
	}
	s := &Shard{from: from, index: make([]byte, end-at)}
	if err := readAt(from, s.index, int64(at)); err != nil {
		return nil, err
	}
	return s, s.checkIndex(at, tokens)
}

func readAt(from io.ReaderAt, b []byte, at int64) error {
	if n, err := from.ReadAt(b, at); err != nil && n < len(b) {
		return fmt.Errorf("read token shard: %w", err)
	}
	return nil
}

// checkIndex says whether the sequences lie one after the other up to the index at at, and have that many tokens.
func (s *Shard) checkIndex(at, tokens uint64) error {
	offset, sum := uint64(headerSize), uint64(0)
	for i := range s.Len() {
		start, length := s.entry(i)
		targets := binary.LittleEndian.Uint32(s.index[i*entrySize+12:])
		if start != offset || length == 0 || length > math.MaxInt32 || uint64(length)*8 > at-offset {
			return formatError("sequence %d of %d tokens at %d does not fit", i, length, start)
		}
		if targets >= length {
			return formatError("sequence %d has %d targets in %d tokens", i, targets, length)
		}
		if w := s.Weight(i); !(w >= 0 && w <= math.MaxFloat32) {
			return formatError("sequence %d has weight %v", i, w)
		}
		offset += uint64(length) * 8
		sum += uint64(length)
	}
	if offset != at || sum != tokens {
		return formatError("%d tokens are there, the footer says %d", sum, tokens)
	}
	return nil
}

func (s *Shard) entry(i int) (offset uint64, length uint32) {
	e := s.index[i*entrySize:]
	return binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint32(e[8:])
}

// Len returns the number of sequences.
func (s *Shard) Len() int { return len(s.index) / entrySize }

// Length returns the number of tokens of sequence i.
func (s *Shard) Length(i int) int { _, n := s.entry(i); return int(n) }

// Targets returns N_i, the number of targets of sequence i.
func (s *Shard) Targets(i int) int {
	return int(binary.LittleEndian.Uint32(s.index[i*entrySize+12:]))
}

// Instance returns the number of the instance that sequence i was made from.
func (s *Shard) Instance(i int) int {
	return int(binary.LittleEndian.Uint32(s.index[i*entrySize+16:]))
}

// Weight returns w_i.
func (s *Shard) Weight(i int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(s.index[i*entrySize+20:])))
}

// Sequence copies sequence i out of the shard.
func (s *Shard) Sequence(i int) (datasets.Sequence, error) {
	if i < 0 || i >= s.Len() {
		return datasets.Sequence{}, fmt.Errorf("sequence %d does not exist, the shard has %d", i, s.Len())
	}
	offset, length := s.entry(i)
	var raw []byte
	if s.data != nil {
		raw = s.data[offset : offset+8*uint64(length)]
	} else {
		raw = make([]byte, 8*uint64(length))
		if err := readAt(s.from, raw, int64(offset)); err != nil {
			return datasets.Sequence{}, err
		}
	}
	both := make([]int32, 2*length)
	for t := range both {
		both[t] = int32(binary.LittleEndian.Uint32(raw[4*t:]))
	}
	return datasets.Sequence{IDs: both[:length:length], Labels: both[length:]}, nil
}

// Check reads every token: IDs are inside a vocabulary of vocab tokens (0 skips that), labels are
// IgnoreIndex or inside it, and the targets are as many as the index says.
func (s *Shard) Check(vocab int) error {
	for i := range s.Len() {
		seq, err := s.Sequence(i)
		if err != nil {
			return err
		}
		if n := seq.Targets(); n != s.Targets(i) {
			return formatError("sequence %d has %d targets, the index says %d", i, n, s.Targets(i))
		}
		for t, id := range seq.IDs {
			label := seq.Labels[t]
			if id < 0 || vocab > 0 && int(id) >= vocab {
				return formatError("sequence %d has token %d outside the vocabulary of %d", i, id, vocab)
			}
			if label != datasets.IgnoreIndex && (label < 0 || vocab > 0 && int(label) >= vocab) {
				return formatError("sequence %d has label %d outside the vocabulary of %d", i, label, vocab)
			}
		}
	}
	return nil
}

// Set is several shards as one SequenceSource, numbered in order.
type Set struct {
	shards []*Shard
	ends   []int
}

// NewSet joins shards.
func NewSet(shards ...*Shard) *Set {
	s := &Set{shards: shards}
	n := 0
	for _, shard := range shards {
		n += shard.Len()
		s.ends = append(s.ends, n)
	}
	return s
}

// Len returns the number of sequences.
func (s *Set) Len() int {
	if len(s.ends) == 0 {
		return 0
	}
	return s.ends[len(s.ends)-1]
}

// At returns the shard that holds sequence id and its number there.
func (s *Set) At(id int) (*Shard, int, error) {
	if id < 0 || id >= s.Len() {
		return nil, 0, fmt.Errorf("sequence %d does not exist, there are %d", id, s.Len())
	}
	k := sort.SearchInts(s.ends, id+1)
	if k > 0 {
		id -= s.ends[k-1]
	}
	return s.shards[k], id, nil
}

// Sequence copies sequence id.
func (s *Set) Sequence(id int) (datasets.Sequence, error) {
	shard, i, err := s.At(id)
	if err != nil {
		return datasets.Sequence{}, err
	}
	return shard.Sequence(i)
}

// Counts returns the tokens and targets of sequence id, from the index.
func (s *Set) Counts(id int) (tokens, targets int) {
	shard, i, err := s.At(id)
	if err != nil {
		return 0, 0
	}
	return shard.Length(i), shard.Targets(i)
}

// Lengths returns the lengths of all sequences, from the indexes alone.
func (s *Set) Lengths() []int { return collect(s, (*Shard).Length) }

// Targets returns N_i of all sequences.
func (s *Set) Targets() []int { return collect(s, (*Shard).Targets) }

// Weights returns w_i of all sequences.
func (s *Set) Weights() []float64 { return collect(s, (*Shard).Weight) }

func collect[T any](s *Set, get func(*Shard, int) T) []T {
	all := make([]T, 0, s.Len())
	for _, shard := range s.shards {
		for i := range shard.Len() {
			all = append(all, get(shard, i))
		}
	}
	return all
}
