package instructions

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"github.com/longalign/longalign-go/datasets"
)

// maxLine bounds one instance in a file.
const maxLine = 256 << 20

// Write appends an instance to JSON lines.
func Write(w io.Writer, i datasets.Instance) error { return writeLine(w, i) }

// WriteDocument appends a document to JSON lines.
func WriteDocument(w io.Writer, d datasets.Document) error { return writeLine(w, d) }

func writeLine(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Read reads what Write wrote, one instance at a time. name is the file's, for errors.
func Read(r io.Reader, name string) iter.Seq2[datasets.Instance, error] {
	return readLines[datasets.Instance](r, name)
}

// ReadDocuments reads what WriteDocument wrote.
func ReadDocuments(r io.Reader, name string) iter.Seq2[datasets.Document, error] {
	return readLines[datasets.Document](r, name)
}

func readLines[T any](r io.Reader, name string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		scan := bufio.NewScanner(r)
		scan.Buffer(make([]byte, 1<<16), maxLine)
		number := 0
		for scan.Scan() {
			number++
			if len(bytes.TrimSpace(scan.Bytes())) == 0 {
				continue
			}
			var v T
			err := json.Unmarshal(scan.Bytes(), &v)
			if err != nil {
				err = fmt.Errorf("%s:%d: %w", name, number, err)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
		if err := scan.Err(); err != nil {
			var zero T
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("the line is longer than %d bytes", maxLine)
			}
			yield(zero, fmt.Errorf("%s:%d: %w", name, number+1, err))
		}
	}
}

// Prefix returns the numbers, ascending, of the first size of n instances in the order shuffled by seed. Prefixes
// of one seed are nested: the 5k suite's long instances are among the 10k suite's.
func Prefix(n, size int, seed uint64) ([]int, error) {
	if size < 0 || size > n {
		return nil, fmt.Errorf("suite: %d instances were asked for, there are %d", size, n)
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	datasets.Shuffle(datasets.NewRand(seed, suiteStream), order)
	prefix := order[:size]
	slices.Sort(prefix)
	return prefix, nil
}

// suiteStream parts the randomness of suites from that of plans with the same seed.
const suiteStream = 0x7375697465 // "suite"

// Mixture draws total instances from parts of the given sizes in proportion to weights, without repetition: nested
// prefixes of each. What a small part cannot give is not made up by others; that is an error.
func Mixture(sizes []int, weights []float64, total int, seed uint64) ([][]int, error) {
	if len(sizes) != len(weights) || len(sizes) == 0 {
		return nil, fmt.Errorf("mixture: %d parts and %d weights", len(sizes), len(weights))
	}
	sum := 0.0
	for k, w := range weights {
		if !(w >= 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("mixture: part %d has weight %v", k, w)
		}
		sum += w
	}
	if sum == 0 {
		return nil, fmt.Errorf("mixture: all weights are 0")
	}
	parts := make([][]int, len(sizes))
	taken, running := 0, 0.0
	for k := range sizes {
		running += weights[k]
		// Rounding the running sum gives exactly total over all parts.
		upTo := int(math.Round(float64(total) * running / sum))
		part, err := Prefix(sizes[k], upTo-taken, seed+uint64(k))
		if err != nil {
			return nil, fmt.Errorf("mixture: part %d: %w", k, err)
		}
		parts[k], taken = part, upTo
	}
	return parts, nil
}
