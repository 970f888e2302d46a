// Package safetensors reads and writes the safetensors format: an 8-byte little-endian
// header length, a JSON header that gives each tensor's type, shape and byte range, and the
// tensors' bytes end to end.
//
// The reader is made for files that nobody vouches for. It accepts a file only if the byte
// ranges tile the data exactly (no hole, no overlap, nothing behind the end), each range has the
// size that its type and shape ask for and starts on a multiple of the element size, and no name
// occurs twice. It never allocates more than the file's own size suggests. Errors are *FormatError.
//
// The writer is deterministic: the same tensors in the same order give the same bytes.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

// maxHeader bounds the JSON header, as other implementations do.
const maxHeader = 100 << 20

// maxRank bounds the number of dimensions of a tensor.
const maxRank = 16

// DType is an element type as written in the header.
type DType string

// Element types that hold floating-point numbers, and bytes. Others are carried as bytes.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	U8   DType = "U8"
)

var sizes = map[DType]int{
	F64: 8, F32: 4, F16: 2, BF16: 2,
	"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
	"F8_E4M3": 1, "F8_E5M2": 1,
}

// Size returns the bytes of one element, 0 for an unknown type.
func (t DType) Size() int { return sizes[t] }

// FormatError says what is wrong with a safetensors file and in which tensor.
type FormatError struct {
	File   string // "" when the bytes have no name
	Tensor string // "" when the header as a whole is wrong
	Reason string
}

func (e *FormatError) Error() string {
	s := "safetensors: "
	if e.File != "" {
		s = e.File + ": "
	}
	if e.Tensor != "" {
		s += fmt.Sprintf("tensor %q: ", e.Tensor)
	}
	return s + e.Reason
}

// Tensor is one tensor of a file. Data shares the file's memory: it must not be written to
// and is dead after Close.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// Len returns the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// File is a parsed safetensors file.
type File struct {
	name     string
	header   []byte
	metadata map[string]string
	tensors  []Tensor
	index    map[string]int
	unmap    func() error
}

// Open maps the file at path into memory and checks it.
func Open(path string) (*File, error) {
	data, unmap, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(data)
	if err != nil {
		var fe *FormatError
		if errors.As(err, &fe) {
			fe.File = path
		}
		return nil, errors.Join(err, unmap())
	}
	f.name, f.unmap = path, unmap
	return f, nil
}

// Close releases the memory map. Tensors of the file are then dead.
func (f *File) Close() error {
	if f.unmap == nil {
		return nil
	}
	unmap := f.unmap
	f.unmap, f.tensors, f.index = nil, nil, nil
	return unmap()
}

// Header returns the raw JSON header with its padding.
func (f *File) Header() []byte { return bytes.Clone(f.header) }

// Metadata returns the free-form "__metadata__" of the header.
func (f *File) Metadata() map[string]string { return f.metadata }

// Tensors returns all tensors in the order of their bytes.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor returns the tensor named name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

type entry struct {
	DType   *DType   `json:"dtype"`
	Shape   *[]int64 `json:"shape"`
	Offsets *[]int64 `json:"data_offsets"`
}

// Parse checks a whole file held in memory; tensors share data.
func Parse(data []byte) (*File, error) {
	bad := func(tensor, format string, args ...any) error {
		return &FormatError{Tensor: tensor, Reason: fmt.Sprintf(format, args...)}
	}
	if len(data) < 8 {
		return nil, bad("", "%d bytes are too few for a header length; the file is truncated", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader {
		return nil, bad("", "a header of %d bytes exceeds the limit of %d", n, maxHeader)
	}
	if n > uint64(len(data)-8) {
		return nil, bad("", "the header of %d bytes reaches beyond the file of %d; the file is truncated", n, len(data))
	}
	f := &File{header: data[8 : 8+n], index: map[string]int{}}
	body := data[8+n:]

	dec := json.NewDecoder(bytes.NewReader(f.header))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, bad("", "the header is not a JSON object")
	}
	type span struct {
		begin, end int64
	}
	var spans []span
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, bad("", "header: %v", err)
		}
		name := t.(string) // a key of an object is always a string
		if name == "__metadata__" {
			if f.metadata != nil {
				return nil, bad("", "__metadata__ occurs twice")
			}
			if err := dec.Decode(&f.metadata); err != nil || f.metadata == nil {
				return nil, bad("", "__metadata__ is not an object of strings")
			}
			continue
		}
		if _, twice := f.index[name]; twice {
			return nil, bad(name, "occurs twice")
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, bad(name, "header: %v", err)
		}
		e, err := parseEntry(raw)
		if err != nil {
			return nil, bad(name, "%v", err)
		}
		shape, bytesWanted, err := shapeOf(e)
		if err != nil {
			return nil, bad(name, "%v", err)
		}
		begin, end := (*e.Offsets)[0], (*e.Offsets)[1]
		switch {
		case begin < 0 || end < begin || end > int64(len(body)):
			return nil, bad(name, "data_offsets [%d, %d] lie outside the %d bytes of data; the file may be truncated", begin, end, len(body))
		case end-begin != bytesWanted:
			return nil, bad(name, "%s %v needs %d bytes, data_offsets hold %d", *e.DType, shape, bytesWanted, end-begin)
		case begin%int64(e.DType.Size()) != 0:
			return nil, bad(name, "begins at byte %d, not a multiple of the element size %d", begin, e.DType.Size())
		}
		f.index[name] = len(f.tensors)
		f.tensors = append(f.tensors, Tensor{Name: name, DType: *e.DType, Shape: shape, Data: body[begin:end:end]})
		spans = append(spans, span{begin, end})
	}
	if _, err := dec.Token(); err != nil {
		return nil, bad("", "header: %v", err)
	}
	if rest := bytes.TrimRight(f.header[dec.InputOffset():], " \t\r\n"); len(rest) != 0 {
		return nil, bad("", "%d bytes follow the header's JSON", len(rest))
	}

	order := make([]int, len(spans))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool {
		x, y := spans[order[a]], spans[order[b]]
		if x.begin != y.begin {
			return x.begin < y.begin
		}
		return x.end < y.end
	})
	var at int64
	sorted := make([]Tensor, len(order))
	for k, i := range order {
		t := f.tensors[i]
		if spans[i].begin < at {
			return nil, bad(t.Name, "begins at byte %d inside the tensor before it, which ends at %d", spans[i].begin, at)
		}
		if spans[i].begin > at {
			return nil, bad(t.Name, "begins at byte %d, leaving a hole after byte %d", spans[i].begin, at)
		}
		at = spans[i].end
		sorted[k] = t
		f.index[t.Name] = k
	}
	if at != int64(len(body)) {
		return nil, bad("", "%d bytes follow the last tensor", int64(len(body))-at)
	}
	f.tensors = sorted
	return f, nil
}

func parseEntry(raw json.RawMessage) (entry, error) {
	var e entry
	// Unknown keys could change what the bytes mean, and a repeated key is read differently
	// by different parsers.
	if keys, err := objectKeys(raw); err != nil {
		return e, err
	} else if slices.Sort(keys); !slices.Equal(keys, []string{"data_offsets", "dtype", "shape"}) {
		return e, fmt.Errorf("wants exactly dtype, shape and data_offsets, has %q", keys)
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, err
	}
	switch {
	case e.DType == nil || e.Shape == nil || e.Offsets == nil:
		return e, errors.New("dtype, shape or data_offsets is missing")
	case e.DType.Size() == 0:
		return e, fmt.Errorf("dtype %q is not known", *e.DType)
	case len(*e.Offsets) != 2:
		return e, fmt.Errorf("data_offsets has %d numbers, not 2", len(*e.Offsets))
	}
	return e, nil
}

func objectKeys(raw json.RawMessage) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("is not a JSON object")
	}
	var keys []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		keys = append(keys, t.(string))
		if len(keys) > 3 {
			break
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func shapeOf(e entry) (shape []int, size int64, err error) {
	if len(*e.Shape) > maxRank {
		return nil, 0, fmt.Errorf("has %d dimensions, the limit is %d", len(*e.Shape), maxRank)
	}
	size = int64(e.DType.Size())
	empty := false
	for _, d := range *e.Shape {
		if d < 0 || d > math.MaxInt64/16 {
			return nil, 0, fmt.Errorf("shape %v is impossible", *e.Shape)
		}
		empty = empty || d == 0
		shape = append(shape, int(d))
	}
	if empty {
		return shape, 0, nil
	}
	for _, d := range *e.Shape {
		if size > math.MaxInt64/d {
			return nil, 0, fmt.Errorf("shape %v overflows", *e.Shape)
		}
		size *= d
	}
	return shape, size, nil
}
