package fetch

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// publisher serves files by path and counts requests.
type publisher struct {
	*httptest.Server
	files    map[string][]byte
	requests int
	broken   int // downloads that break off in the middle
}

func newPublisher(t *testing.T) *publisher {
	p := &publisher{files: map[string][]byte{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests++
		data, ok := p.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		start := 0
		if _, err := fmt.Sscanf(r.Header.Get("range"), "bytes=%d-", &start); err == nil {
			w.Header().Set("content-length", fmt.Sprint(len(data)-start))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("content-length", fmt.Sprint(len(data)))
		}
		if p.broken > 0 {
			p.broken--
			_, _ = w.Write(data[start : start+(len(data)-start)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(data[start:])
	}))
	t.Cleanup(p.Close)
	return p
}

func zipped(t *testing.T, members map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range members {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	w := tar.NewWriter(g)
	for _, h := range headers {
		h.Mode, h.Size = 0o644, 0
		text := "text of " + h.Name
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var book = Item{Name: "book", Files: []File{{URL: "https://publisher.example/book/one.txt", As: "one.txt"}}}

func TestTheFirstFetchRecordsAndLaterOnesCompare(t *testing.T) {
	p := newPublisher(t)
	p.files["/book/one.txt"] = []byte("the first edition")
	o := Options{Dir: t.TempDir(), Mirror: p.URL}
	get := func(o Options) (Result, error) { return Get(t.Context(), http.DefaultClient, book, o) }
	r, err := get(o)
	if err != nil || r.Present || r.Locked {
		t.Fatalf("%+v, %v", r, err)
	}
	if text, err := os.ReadFile(filepath.Join(r.Dir, "one.txt")); err != nil || string(text) != "the first edition" {
		t.Fatalf("%q, %v", text, err)
	}
	if r, err = get(o); err != nil || !r.Present || p.requests != 1 {
		t.Errorf("fetched again although it is there: %d requests, %+v, %v", p.requests, r, err)
	}
	// On another machine with the same lock file the same files come.
	other := Options{Dir: t.TempDir(), Mirror: p.URL, Lock: filepath.Join(o.Dir, "fetch.lock.json")}
	if r, err = get(other); err != nil || r.Present || !r.Locked {
		t.Errorf("%+v, %v", r, err)
	}
	// What was changed in the cache is fetched anew.
	if err := os.WriteFile(filepath.Join(r.Dir, "one.txt"), []byte("scribbles"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err = get(other); err != nil || r.Present || !r.Locked {
		t.Errorf("%+v, %v", r, err)
	}
	// A changed file is refused, and what was there stays.
	p.files["/book/one.txt"] = []byte("another edition")
	third := Options{Dir: t.TempDir(), Mirror: p.URL, Lock: other.Lock}
	var changed *DigestError
	if _, err = get(third); !errors.As(err, &changed) || changed.File != "one.txt" {
		t.Errorf("a changed file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(third.Dir, "book")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was refused is there: %v", err)
	}
	third.Update = true
	if r, err = get(third); err != nil || r.Locked {
		t.Errorf("--update: %+v, %v", r, err)
	}
	third.Update = false
	if r, err = get(third); err != nil || !r.Present {
		t.Errorf("after --update: %+v, %v", r, err)
	}
}

func TestDownloadsGoOnWhereTheyBroke(t *testing.T) {
	p := newPublisher(t)
	p.files["/book/one.txt"] = bytes.Repeat([]byte("0123456789"), 100_000)
	p.broken = 2
	r, err := Get(t.Context(), http.DefaultClient, book, Options{Dir: t.TempDir(), Mirror: p.URL})
	if err != nil || p.requests != 3 {
		t.Fatalf("%d requests, %v", p.requests, err)
	}
	if got, err := os.ReadFile(filepath.Join(r.Dir, "one.txt")); err != nil || !bytes.Equal(got, p.files["/book/one.txt"]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestArchives(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for name, tt := range map[string]struct {
		file File
		data []byte
		want []string
		err  string
	}{
		"a zip's directory":              {File{As: "data", Archive: "zip", Below: "data"}, zipped(t, map[string]string{"data/a.jsonl": "a", "data/b/c.jsonl": "c", "README": "r"}), []string{"data/a.jsonl", "data/b/c.jsonl"}, ""},
		"chosen members of a tar":        {File{As: ".", Archive: "tar.gz", Below: "x-1/x", Keep: []string{"dict.txt", "f/p.py"}}, tarred(t, file("x-1/x/dict.txt"), file("x-1/x/f/p.py"), file("x-1/x/other"), file("x-1/setup.py")), []string{"dict.txt", "f/p.py"}, ""},
		"a chosen member is missing":     {File{As: ".", Archive: "tar.gz", Keep: []string{"dict.txt"}}, tarred(t, file("other")), nil, "holds no dict.txt"},
		"a zip that climbs out":          {File{As: "data", Archive: "zip"}, zipped(t, map[string]string{"../../evil": "x"}), nil, "leaves its directory"},
		"a zip with an absolute path":    {File{As: "data", Archive: "zip"}, zipped(t, map[string]string{"/etc/evil": "x"}), nil, "leaves its directory"},
		"a zip with Windows paths":       {File{As: "data", Archive: "zip"}, zipped(t, map[string]string{`..\evil`: "x"}), nil, "leaves its directory"},
		"a tar that climbs out":          {File{As: ".", Archive: "tar.gz"}, tarred(t, file("a/../../evil")), nil, "leaves its directory"},
		"a tar with a symbolic link":     {File{As: ".", Archive: "tar.gz"}, tarred(t, tar.Header{Name: "l", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}), nil, "links and devices are refused"},
		"a tar with a hard link":         {File{As: ".", Archive: "tar.gz"}, tarred(t, tar.Header{Name: "l", Linkname: "x", Typeflag: tar.TypeLink}), nil, "links and devices are refused"},
		"the same member twice":          {File{As: ".", Archive: "tar.gz"}, tarred(t, file("a"), file("a")), nil, "exists"},
		"what is no zip":                 {File{As: ".", Archive: "zip"}, []byte("<html>"), nil, "no zip archive"},
		"what is no gzip":                {File{As: ".", Archive: "tar.gz"}, []byte("<html>"), nil, "not gzip"},
		"a file of another known digest": {File{As: "one", Digests: map[string]string{"one": strings.Repeat("0", 64)}}, []byte("x"), nil, "recorded is 0000"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublisher(t)
			p.files["/f"] = tt.data
			tt.file.URL = "https://publisher.example/f"
			dir := filepath.Join(t.TempDir(), "a", "b", "cache")
			r, err := Get(t.Context(), http.DefaultClient, Item{Name: "item", Files: []File{tt.file}}, Options{Dir: dir, Mirror: p.URL})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				if _, err := os.Stat(filepath.Join(dir, "item")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("something was put in place: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range tt.want {
				if _, ok := r.Files[name]; ok {
					got = append(got, name)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || len(r.Files) != len(tt.want) {
				t.Errorf("%s; files %v", diff, r.Files)
			}
		})
	}
}

func TestTheTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, item := range Table {
		if seen[item.Name] || item.About == "" || !strings.HasPrefix(item.Home, "https://") || len(item.Files) == 0 {
			t.Errorf("%s: twice, or without description, home or files", item.Name)
		}
		seen[item.Name] = true
		for _, f := range item.Files {
			if !strings.HasPrefix(f.URL, "https://") || !filepath.IsLocal(f.As) {
				t.Errorf("%s: %s as %q", item.Name, f.URL, f.As)
			}
		}
	}
	if _, err := Find("longbensh"); err == nil || !strings.Contains(err.Error(), "longbench") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestExpand(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LONGALIGN_FETCHED", dir)
	if err := os.Mkdir(filepath.Join(dir, "book"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"$FETCHED/book": filepath.Join(dir, "book"), "/plain": "/plain", "$FETCHEDX/y": "$FETCHEDX/y", "$FETCHED": dir} {
		if got, err := Expand(path); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	if _, err := Expand("$FETCHED/sharegpt/x.json"); err == nil || !strings.Contains(err.Error(), "starter fetch sharegpt") {
		t.Errorf("what was not fetched: %v", err)
	}
}
