package documents

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode/utf32"

	textunicode "golang.org/x/text/encoding/unicode"
)

// whole reads a file as text, at most maxBytes of it.
func (r *reader) whole(name string) (string, error) {
	data, err := r.wholeBytes(name)
	if err != nil {
		return "", err
	}
	text, err := Text(data)
	if err != nil {
		return "", &InputError{File: name, Reason: err.Error()}
	}
	return text, nil
}

func (r *reader) wholeBytes(name string) ([]byte, error) {
	in, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, r.maxBytes+1))
	if err != nil {
		return nil, in.blame(&InputError{File: name, Reason: "cannot be read", Err: err})
	}
	if int64(len(data)) > r.maxBytes {
		return nil, &InputError{File: name, Reason: fmt.Sprintf("the document is larger than max_bytes (%d); raise it, or split the file", r.maxBytes)}
	}
	return data, nil
}

// Text decodes a document's bytes: UTF-8, or UTF-16 or UTF-32 with a byte order mark. Line ends
// become \n. It fails on anything else and on NUL.
func Text(data []byte) (string, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe, 0, 0}), bytes.HasPrefix(data, []byte{0, 0, 0xfe, 0xff}):
		decoded, err := utf32.UTF32(utf32.LittleEndian, utf32.ExpectBOM).NewDecoder().Bytes(data)
		if err != nil {
			return "", fmt.Errorf("is broken UTF-32: %w", err)
		}
		data = decoded
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		decoded, err := textunicode.UTF16(textunicode.LittleEndian, textunicode.ExpectBOM).NewDecoder().Bytes(data)
		if err != nil {
			return "", fmt.Errorf("is broken UTF-16: %w", err)
		}
		data = decoded
	default:
		data = bytes.TrimPrefix(data, []byte("\ufeff"))
	}
	if err := checkText(data); err != nil {
		return "", err
	}
	text := string(data)
	if strings.Contains(text, "\r") {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	}
	return text, nil
}

// checkText says why data is no text.
func checkText(data []byte) error {
	if err := noNUL(bytes.IndexByte(data, 0)); err != nil {
		return err
	}
	for i := 0; i < len(data); {
		if data[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return fmt.Errorf("is not UTF-8: byte %#02x at %d; convert it, for example with iconv -t UTF-8", data[i], i)
		}
		i += n
	}
	return nil
}

// noNUL says what is wrong with a text whose first NUL byte is at i; below 0 nothing is.
func noNUL(i int) error {
	if i >= 0 {
		return fmt.Errorf("has a NUL byte at %d, so it is no text; exclude it or convert it", i)
	}
	return nil
}

// Language returns zh for a text a tenth of whose first 10,000 letters are Han, else en: the two
// languages that prompts are written in.
func Language(text string) string {
	letters, han := 0, 0
	for _, r := range text {
		if r < utf8.RuneSelf && ('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') || r >= utf8.RuneSelf && unicode.IsLetter(r) {
			if letters++; letters > 10000 {
				break
			}
			if unicode.Is(unicode.Han, r) {
				han++
			}
		}
	}
	if han > 0 && 10*han >= letters {
		return "zh"
	}
	return "en"
}

// keptLine is how much memory the next line may take over from the one before.
const keptLine = 1 << 20

// lines gives each line of in without its end, and its number from 1. Lines longer than limit are
// given as errTooLong and passed over, whatever their length, in bounded memory. name is for errors.
func lines(name string, in io.Reader, limit int64, yield func(number int, line []byte, err error) error) error {
	buf := make([]byte, 0, 1<<16)
	chunk := make([]byte, 1<<16)
	number, tooLong := 1, false
	give := func() error {
		var err error
		if tooLong {
			err = errTooLong
		}
		line := bytes.TrimSuffix(buf, []byte("\r"))
		err = yield(number, line, err)
		if number, tooLong = number+1, false; cap(buf) > keptLine {
			buf = nil // one long line would hold its memory to the end of the file
		}
		buf = buf[:0]
		return err
	}
	for {
		n, err := in.Read(chunk)
		for rest := chunk[:n]; len(rest) > 0; {
			part, after, found := bytes.Cut(rest, []byte("\n"))
			if tooLong = tooLong || int64(len(buf)+len(part)) > limit; !tooLong {
				buf = append(buf, part...)
			}
			if rest = after; found {
				if err := give(); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(buf) > 0 || tooLong {
				return give()
			}
			return nil
		case errors.As(err, new(*ReadError)):
			return err
		case err != nil:
			return &InputError{File: name, Line: number, Reason: "cannot be read; the file may be cut short or damaged", Err: err}
		}
	}
}

var errTooLong = errors.New("line is too long")
