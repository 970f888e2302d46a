package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func testRoundTrip(t *testing.T, s *artifact.Store) {
	for name, tt := range map[string]struct{ key, data string }{
		"an empty object":            {"empty", ""},
		"text":                       {"a/b/c.json", `{"x":1}`},
		"every byte":                 {"bytes", string(random(1, 70_000))},
		"a key that needs escaping":  {"blobs/a b+c%2F&=?#~'(é)/文.txt", "x"},
		"a key with dots inside":     {"a..b/c.", "x"},
		"a long segment":             {strings.Repeat("k", 200), "x"},
		"an object of unknown size":  {"unknown", "x"},
		"replaced without condition": {"a/b/c.json", "second"},
	} {
		size := int64(len(tt.data))
		if name == "an object of unknown size" {
			size = -1
		}
		etag, err := s.Backend().Put(t.Context(), tt.key, strings.NewReader(tt.data), size, artifact.Condition{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := get(t, s, tt.key); got != tt.data {
			t.Errorf("%s: got %d bytes, want %d", name, len(got), len(tt.data))
		}
		info, err := s.Backend().Head(t.Context(), tt.key)
		if err != nil || info.ETag != etag || info.Size != int64(len(tt.data)) || info.Key != tt.key {
			t.Errorf("%s: head gives %+v, %v; put gave entity tag %s", name, info, err, etag)
		}
		if err := s.Backend().Delete(t.Context(), tt.key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := list(t, s, ""); left != nil {
		t.Errorf("left after deleting all: %q", left)
	}
}

func testKeys(t *testing.T, s *artifact.Store) {
	ctx, b := t.Context(), s.Backend()
	for name, key := range map[string]string{
		"empty":             "",
		"absolute":          "/etc/passwd",
		"parent":            "../outside",
		"parent inside":     "a/../../outside",
		"only a parent":     "..",
		"here":              "a/./b",
		"hidden":            "a/.tmp-x",
		"empty segment":     "a//b",
		"trailing slash":    "a/",
		"backslash":         `a\..\b`,
		"control character": "a\nb",
		"zero byte":         "a\x00b",
		"not UTF-8":         "a\xffb",
		"too long":          strings.Repeat("a/", 600) + "a",
	} {
		_, err := b.Put(ctx, key, strings.NewReader("x"), 1, artifact.Condition{})
		wantError(t, name+": put", err, artifact.ErrKey)
		_, _, err = b.Get(ctx, key)
		wantError(t, name+": get", err, artifact.ErrKey)
		_, err = b.GetRange(ctx, key, 0, 1)
		wantError(t, name+": get range", err, artifact.ErrKey)
		_, err = b.Head(ctx, key)
		wantError(t, name+": head", err, artifact.ErrKey)
		wantError(t, name+": delete", b.Delete(ctx, key), artifact.ErrKey)
	}
	if left := list(t, s, ""); left != nil {
		t.Errorf("refused puts left %q", left)
	}
}

func testAbsent(t *testing.T, s *artifact.Store) {
	ctx, b := t.Context(), s.Backend()
	check := func() {
		t.Helper()
		_, _, err := b.Get(ctx, "a/absent")
		wantError(t, "get", err, artifact.ErrNotFound)
		_, err = b.GetRange(ctx, "a/absent", 0, 1)
		wantError(t, "get range", err, artifact.ErrNotFound)
		_, err = b.Head(ctx, "a/absent")
		wantError(t, "head", err, artifact.ErrNotFound)
		if err := b.Delete(ctx, "a/absent"); err != nil {
			t.Errorf("delete: %v", err)
		}
		if got := list(t, s, "absent/"); got != nil {
			t.Errorf("list: %q", got)
		}
	}
	check()
	put(t, s, "a/present/deep", "x", artifact.Condition{})
	check()
	_, err := b.Head(ctx, "a/present")
	wantError(t, "what other keys have as a prefix", err, artifact.ErrNotFound)
}

func testRanges(t *testing.T, s *artifact.Store) {
	put(t, s, "digits", "0123456789", artifact.Condition{})
	for name, tt := range map[string]struct {
		off, n int64
		want   string
	}{
		"the beginning":     {0, 3, "012"},
		"the middle":        {4, 2, "45"},
		"the end":           {7, 3, "789"},
		"beyond the end":    {8, 100, "89"},
		"behind the end":    {10, 5, ""},
		"far behind":        {1000, 5, ""},
		"nothing":           {3, 0, ""},
		"the whole of it":   {0, 10, "0123456789"},
		"more than a whole": {0, 1 << 40, "0123456789"},
	} {
		r, err := s.Backend().GetRange(t.Context(), "digits", tt.off, tt.n)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tt.want)
		}
	}
	if _, err := s.Backend().GetRange(t.Context(), "digits", -1, 5); err == nil {
		t.Error("a negative offset was accepted")
	}
}

func testListOrder(t *testing.T, s *artifact.Store) {
	keys := []string{"a-b", "a/b", "a/b-c/d", "a/b.d", "a0", "ab/c", "b", "é", "文/a", "a/c/d/e/f"}
	for _, k := range keys {
		put(t, s, k, k, artifact.Condition{})
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b-", "a/b-c/", "文", "x", "a/b/", "ab"} {
		var want []string
		for _, k := range keys {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		if diff := cmp.Diff(want, list(t, s, prefix)); diff != "" {
			t.Errorf("keys with prefix %q (−want +got):\n%s", prefix, diff)
		}
	}
	for range s.Backend().List(t.Context(), "") {
		break // a listing may be left
	}
}

func testIfNoneMatch(t *testing.T, s *artifact.Store) {
	create := artifact.Condition{IfNoneMatch: true}
	put(t, s, "a/k", "first", create)
	_, err := s.Backend().Put(t.Context(), "a/k", strings.NewReader("second"), 6, create)
	wantError(t, "second put", err, artifact.ErrExists)
	if got := get(t, s, "a/k"); got != "first" {
		t.Errorf("got %q, want the first", got)
	}
	if err := s.Backend().Delete(t.Context(), "a/k"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/k", "third", create)
}

func testIfMatch(t *testing.T, s *artifact.Store) {
	_, err := s.Backend().Put(t.Context(), "k", strings.NewReader("x"), 1, artifact.Condition{IfMatch: `"0123456789abcdef0123456789abcdef"`})
	wantError(t, "replacing what is absent", err, artifact.ErrChanged)
	first := put(t, s, "k", "one", artifact.Condition{})
	second := put(t, s, "k", "two", artifact.Condition{IfMatch: first})
	_, err = s.Backend().Put(t.Context(), "k", strings.NewReader("xxx"), 3, artifact.Condition{IfMatch: first})
	wantError(t, "replacing an old version", err, artifact.ErrChanged)
	if got := get(t, s, "k"); got != "two" {
		t.Errorf("got %q, want two", got)
	}
	put(t, s, "k", "three", artifact.Condition{IfMatch: second})
}

func testCreateRace(t *testing.T, s *artifact.Store) {
	const writers = 24
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprintf("writer %2d\n", i), 1000)
			_, errs[i] = s.Backend().Put(t.Context(), "race/key", strings.NewReader(body), int64(len(body)), artifact.Condition{IfNoneMatch: true})
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil && winner >= 0 {
			t.Errorf("writers %d and %d both won", winner, i)
		} else if err == nil {
			winner = i
		} else if !errors.Is(err, artifact.ErrExists) {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	if want := strings.Repeat(fmt.Sprintf("writer %2d\n", winner), 1000); get(t, s, "race/key") != want {
		t.Errorf("the object is not what writer %d, who won, has put", winner)
	}
}

func testReplaceRace(t *testing.T, s *artifact.Store) {
	const writers, each = 6, 4
	put(t, s, "count", "0", artifact.Condition{})
	increment := func(ctx context.Context) error {
		for {
			r, info, err := s.Backend().Get(ctx, "count")
			if err != nil {
				return err
			}
			var n int
			_, err = fmt.Fscan(r, &n)
			r.Close()
			if err != nil {
				return err
			}
			next := fmt.Sprint(n + 1)
			_, err = s.Backend().Put(ctx, "count", strings.NewReader(next), int64(len(next)), artifact.Condition{IfMatch: info.ETag})
			if !errors.Is(err, artifact.ErrChanged) {
				return err
			}
		}
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if err := increment(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := get(t, s, "count"), fmt.Sprint(writers*each); got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

func testBodyFails(t *testing.T, s *artifact.Store) {
	broken := errors.New("the source broke")
	large := int64(artifact.PartSize + 1<<20)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cancelling, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, tt := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		size int64
		want error
	}{
		"broken":                     {t.Context(), io.MultiReader(strings.NewReader("abc"), brokenReader{broken}), 6, broken},
		"broken, of unknown size":    {t.Context(), io.MultiReader(strings.NewReader("abc"), brokenReader{broken}), -1, broken},
		"broken in the second part":  {t.Context(), io.MultiReader(randomReader(1, artifact.PartSize+5), brokenReader{broken}), large, broken},
		"shorter than announced":     {t.Context(), strings.NewReader("abc"), 4, nil},
		"longer than announced":      {t.Context(), strings.NewReader("abcde"), 4, nil},
		"large and one byte short":   {t.Context(), randomReader(2, large-1), large, nil},
		"large and one byte long":    {t.Context(), randomReader(2, large+1), large, nil},
		"cancelled in the first go":  {cancelling, io.MultiReader(strings.NewReader("abc"), cancelReader{cancel}, strings.NewReader("def")), 6, context.Canceled},
		"cancelled before it begins": {cancelled, strings.NewReader("abc"), 3, context.Canceled},
	} {
		_, err := s.Backend().Put(tt.ctx, "k", tt.r, tt.size, artifact.Condition{IfNoneMatch: true})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got error %v, want %v", name, err, tt.want)
		}
		if left := list(t, s, ""); left != nil {
			t.Fatalf("%s: left %q", name, left)
		}
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

type cancelReader struct{ cancel context.CancelFunc }

func (c cancelReader) Read([]byte) (int, error) { c.cancel(); return 0, io.EOF }

func testProbe(t *testing.T, s *artifact.Store) {
	if err := s.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if left := list(t, s, ""); left != nil {
		t.Errorf("the probe left %q", left)
	}
}
