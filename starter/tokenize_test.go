package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLinesKeepTheirOrderAcrossCores(t *testing.T) {
	var in, want strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&in, "%d %s\n", i, strings.Repeat("x", i%97))
		fmt.Fprintf(&want, "%d\n", i)
	}
	var out bytes.Buffer
	count, err := mapLines(context.Background(), strings.NewReader(in.String()), &out, func(line []byte) ([]byte, int, error) {
		number, _, _ := bytes.Cut(line, []byte(" "))
		return append(bytes.Clone(number), '\n'), 1, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Error("lines came out in another order")
	}
	if diff := cmp.Diff(lineCount{lines: 20_000, tokens: 20_000, bytes: in.Len()}, count, cmp.AllowUnexported(lineCount{})); diff != "" {
		t.Error(diff)
	}
}

func TestAFailingLineIsNamedByItsNumber(t *testing.T) {
	bad := errors.New("bad")
	_, err := mapLines(context.Background(), strings.NewReader("a\n\nb\nc"), &bytes.Buffer{}, func(line []byte) ([]byte, int, error) {
		if line[0] == 'c' {
			return nil, 0, bad
		}
		return line, 1, nil
	})
	if !errors.Is(err, bad) || err.Error() != "line 4: bad" {
		t.Errorf("got %v, want line 4: bad", err)
	}
}

func TestTheFirstBadLineIsNamedAndThoseBeforeItAreWritten(t *testing.T) {
	in := strings.Repeat(strings.Repeat("x", 999)+"\n", 2000)
	in = in[:600_000] + "bad\n" + in[600_000:1_200_000] + "bad\n" + in[1_200_000:]
	var out bytes.Buffer
	_, err := mapLines(context.Background(), strings.NewReader(in), &out, func(line []byte) ([]byte, int, error) {
		if string(line) == "bad\n" {
			return nil, 0, errors.New("bad")
		}
		return line, 1, nil
	})
	if err == nil || err.Error() != "line 601: bad" {
		t.Errorf("got %v, want line 601: bad", err)
	}
	if out.String() != in[:600_000] {
		t.Errorf("%d bytes were written, want the 600,000 before the bad line", out.Len())
	}
}

func TestTextsThatAreNoneAreRefused(t *testing.T) {
	for in, want := range map[string]string{
		"{\"text\":\"\xe9\"}": "is not UTF-8",
		`{"text":"\ude00"}`:   "half a surrogate pair",
		`{"TEXT":"capitals"}`: `no "text"`,
		`{"text":null}`:       `no "text"`,
		`{"text":5}`:          `"text" is a number where a string is expected`,
		`["text"]`:            "is a list where an object is expected",
	} {
		if _, _, err := encodeLine(nil, []byte(in), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
}
