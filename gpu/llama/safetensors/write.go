package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Entry is a tensor to write. Read returns its bytes and is called once, in
// order, so that only one tensor need be in memory.
type Entry struct {
	Name  string
	DType DType
	Shape []int
	Read  func() ([]byte, error)
}

func (e Entry) bytes() int64 {
	n := int64(e.DType.Size())
	for _, d := range e.Shape {
		n *= int64(d)
	}
	return n
}

// Header returns the header that Write makes for the entries, padded to 8 bytes.
func Header(metadata map[string]string, entries []Entry) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	sep := ""
	field := func(key string, value any) error {
		k, err := json.Marshal(key)
		if err != nil {
			return err
		}
		v, err := json.Marshal(value)
		if err != nil {
			return err
		}
		b.WriteString(sep)
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
		sep = ","
		return nil
	}
	if metadata != nil {
		if err := field("__metadata__", metadata); err != nil {
			return nil, err
		}
	}
	var at int64
	seen := map[string]bool{"__metadata__": true}
	for _, e := range entries {
		size := e.DType.Size()
		switch {
		case seen[e.Name]:
			return nil, &FormatError{Tensor: e.Name, Reason: "occurs twice or has a reserved name"}
		case size == 0:
			return nil, &FormatError{Tensor: e.Name, Reason: fmt.Sprintf("dtype %q is not known", e.DType)}
		case at%int64(size) != 0:
			return nil, &FormatError{Tensor: e.Name, Reason: "would be misaligned; order tensors by falling element size"}
		}
		seen[e.Name] = true
		shape := e.Shape
		if shape == nil {
			shape = []int{}
		}
		if err := field(e.Name, struct {
			DType   DType    `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{e.DType, shape, [2]int64{at, at + e.bytes()}}); err != nil {
			return nil, err
		}
		at += e.bytes()
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len() > maxHeader {
		return nil, &FormatError{Reason: "the header exceeds the limit"}
	}
	return b.Bytes(), nil
}

// Write writes a file with the entries in the order given.
func Write(w io.Writer, metadata map[string]string, entries []Entry) error {
	header, err := Header(metadata, entries)
	if err != nil {
		return err
	}
	return WriteWithHeader(w, header, entries)
}

// WriteWithHeader is Write under a header taken from another file, byte for byte. The entries
// must be the tensors that the header describes, in the order of their bytes.
func WriteWithHeader(w io.Writer, header []byte, entries []Entry) error {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(header)))
	if _, err := w.Write(n[:]); err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, e := range entries {
		data, err := e.Read()
		if err != nil {
			return err
		}
		if int64(len(data)) != e.bytes() {
			return &FormatError{Tensor: e.Name, Reason: fmt.Sprintf("%s %v needs %d bytes, got %d", e.DType, e.Shape, e.bytes(), len(data))}
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile writes a file at path and flushes it to the disk. On failure nothing remains.
func WriteFile(path string, write func(w io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(path))
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if named := (*fs.PathError)(nil); errors.As(err, &named) && named.Path == path {
		return err // it says which file
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return f.Close()
}
