package documents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/longalign/longalign-go/datasets"
)

// readJSONL reads one document a line.
func (r *reader) readJSONL(name string) error {
	in, err := r.open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	return lines(name, in, r.maxBytes, func(number int, line []byte, err error) error {
		if errors.Is(err, errTooLong) {
			return r.bad(&InputError{File: name, Line: number, Reason: fmt.Sprintf("the line is longer than max_bytes (%d); raise it", r.maxBytes)})
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		d, err := r.parseRecord(line)
		if err != nil {
			return r.bad(&InputError{File: name, Line: number, Reason: err.Error()})
		}
		if d.ID == "" {
			d.ID = name + ":" + strconv.Itoa(number)
		}
		if d.Group == "" {
			d.Group = d.ID
		}
		return r.emit(d, datasets.FormatJSONL)
	})
}

// part is a value of a line, not copied: documents may be long.
type part []byte

// UnmarshalJSON keeps raw, which is part of the line and lives as long.
func (p *part) UnmarshalJSON(raw []byte) error {
	*p = raw
	return nil
}

// parseRecord reads a JSON object's fields.
func (r *reader) parseRecord(line []byte) (datasets.Document, error) {
	if err := checkText(line); err != nil {
		return datasets.Document{}, err
	}
	if err := datasets.CheckJSONText(line); err != nil {
		return datasets.Document{}, err
	}
	var record map[string]part
	if err := json.Unmarshal(line, &record); err != nil {
		if explained := datasets.ExplainJSON(err); explained != err {
			return datasets.Document{}, explained
		}
		return datasets.Document{}, fmt.Errorf("is broken JSON: %w", err)
	}
	var d datasets.Document
	raw, ok := record[r.TextField]
	if !ok {
		return d, fmt.Errorf("has no field %q; set text_field to the one that holds the text", r.TextField)
	}
	if err := json.Unmarshal(raw, &d.Text); err != nil || string(raw) == "null" {
		return d, fmt.Errorf("field %q is not a string", r.TextField)
	}
	if err := noNUL(strings.IndexByte(d.Text, 0)); err != nil { // by an escape: the line has none
		return d, fmt.Errorf("field %q %w", r.TextField, err)
	}
	for field, to := range map[string]*string{r.IDField: &d.ID, r.TitleField: &d.Title, r.LangField: &d.Lang, r.GroupField: &d.Group} {
		raw, ok := record[field]
		if !ok || string(raw) == "null" {
			continue
		}
		if json.Unmarshal(raw, to) != nil {
			// IDs are numbers in many files.
			var n json.Number
			if err := json.Unmarshal(raw, &n); err != nil {
				return d, fmt.Errorf("field %q is neither a string nor a number", field)
			}
			*to = n.String()
		}
	}
	return d, nil
}

// readParquet reads one document a row.
func (r *reader) readParquet(name string) (err error) {
	in, err := r.open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	// The library panics on some damaged files.
	defer func() {
		if p := recover(); p != nil {
			err = in.blame(&InputError{File: name, Reason: fmt.Sprintf("is damaged Parquet: %v", p)})
		}
	}()
	at, size, err := r.randomAccess(name, in)
	if err != nil {
		return err
	}
	file, err := parquet.OpenFile(at, size)
	if err != nil {
		return in.blame(&InputError{File: name, Reason: "is no Parquet file", Err: err})
	}
	column := func(field string) int {
		if leaf, ok := file.Schema().Lookup(field); ok && leaf.Node.Leaf() && leaf.MaxRepetitionLevel == 0 {
			return leaf.ColumnIndex
		}
		return -1
	}
	text := column(r.TextField)
	if text < 0 {
		return &InputError{File: name, Reason: fmt.Sprintf("has no column %q of strings; set text_field to one of %s", r.TextField, file.Schema().Columns())}
	}
	others := map[int]func(*datasets.Document, string){
		column(r.IDField):    func(d *datasets.Document, s string) { d.ID = s },
		column(r.TitleField): func(d *datasets.Document, s string) { d.Title = s },
		column(r.LangField):  func(d *datasets.Document, s string) { d.Lang = s },
		column(r.GroupField): func(d *datasets.Document, s string) { d.Group = s },
	}
	number := 0
	for _, group := range file.RowGroups() {
		rows := group.Rows()
		defer rows.Close()
		buf := make([]parquet.Row, 16)
		for {
			n, err := rows.ReadRows(buf)
			for _, row := range buf[:n] {
				number++
				d := datasets.Document{}
				reason := fmt.Sprintf("column %q is null", r.TextField)
				for _, v := range row {
					if v.IsNull() {
						continue
					}
					switch set := others[v.Column()]; {
					case v.Column() == text && v.Kind() == parquet.ByteArray:
						data := v.ByteArray()
						reason = ""
						if int64(len(data)) > r.maxBytes {
							reason = fmt.Sprintf("the document is larger than max_bytes (%d); raise it", r.maxBytes)
						} else if err := checkText(data); err != nil {
							reason = err.Error()
						}
						d.Text = string(data)
					case v.Column() == text:
						reason = fmt.Sprintf("column %q is not of strings", r.TextField)
					case set != nil:
						set(&d, v.String())
					}
				}
				if reason != "" {
					if err := r.bad(&InputError{File: name, Line: number, Reason: reason}); err != nil {
						return err
					}
					continue
				}
				if d.ID == "" {
					d.ID = name + ":" + strconv.Itoa(number)
				}
				if d.Group == "" {
					d.Group = d.ID
				}
				if err := r.emit(d, datasets.FormatParquet); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return in.blame(&InputError{File: name, Line: number + 1, Reason: "cannot be read", Err: err})
			}
		}
	}
	return nil
}

// randomAccess gives a file's bytes in any order, as Parquet needs: directly, or
// from memory where the file only streams.
func (r *reader) randomAccess(name string, in *File) (io.ReaderAt, int64, error) {
	if at, ok := in.raw.File.(io.ReaderAt); ok && in.in == io.Reader(in.raw) {
		if info, err := in.raw.Stat(); err == nil {
			return watchedAt{in.raw, at}, info.Size(), nil
		}
	}
	const limit = 1 << 30
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, 0, in.blame(&InputError{File: name, Reason: "cannot be read", Err: err})
	}
	if len(data) > limit {
		return nil, 0, &InputError{File: name, Reason: "a compressed Parquet file over 1 GiB; uncompress it, Parquet compresses by itself"}
	}
	return bytes.NewReader(data), int64(len(data)), nil
}
