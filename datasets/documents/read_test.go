package documents

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/longalign/longalign-go/datasets"
)

// files makes a file system of names and contents.
func files(contents map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, content := range contents {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

// readAll reads a source whole, with what could not be read.
func readAll(t *testing.T, fsys fs.FS, s datasets.DocumentSource, maxBytes int64) (docs []datasets.Document, bad []string) {
	t.Helper()
	s = datasets.DocumentsParams{Sources: []datasets.DocumentSource{s}}.Defaults().Sources[0]
	if maxBytes == 0 {
		maxBytes = 1 << 20
	}
	_, err := Read(context.Background(), Source{DocumentSource: s, FS: fsys}, maxBytes, func(d datasets.Document) error {
		if d.Source != s.Name {
			t.Errorf("%s is of source %q, want %q", d.ID, d.Source, s.Name)
		}
		d.Source = "" // the same for all
		docs = append(docs, d)
		return nil
	}, func(e *InputError) error {
		bad = append(bad, e.Error())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return docs, bad
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

func zstded(s string) string {
	w, _ := zstd.NewWriter(nil)
	return string(w.EncodeAll([]byte(s), nil))
}

func parqueted(t *testing.T) string {
	type row struct {
		ID   int64   `parquet:"id"`
		Body *string `parquet:"body,optional"`
	}
	text := func(s string) *string { return &s }
	var b bytes.Buffer
	w := parquet.NewGenericWriter[row](&b)
	if _, err := w.Write([]row{{1, text("one")}, {2, nil}, {3, text("thr\x00ee")}, {4, text("four")}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormatsGiveTheirTexts(t *testing.T) {
	for name, tt := range map[string]struct {
		files  map[string]string
		source datasets.DocumentSource
		want   []datasets.Document
	}{
		"JSON lines, with IDs of both types": {
			map[string]string{"a.jsonl": "{\"id\":7,\"text\":\"one\",\"title\":\"T\"}\n\n{\"id\":\"x\",\"text\":\"two\",\"group\":\"g\"}\r\n{\"text\":\"three\"}"},
			datasets.DocumentSource{},
			[]datasets.Document{
				{ID: "7", Text: "one", Title: "T", Group: "7", Kind: "jsonl", Lang: "en"},
				{ID: "x", Text: "two", Group: "g", Kind: "jsonl", Lang: "en"},
				{ID: "a.jsonl:4", Text: "three", Group: "a.jsonl:4", Kind: "jsonl", Lang: "en"},
			},
		},
		"fields of other names": {
			map[string]string{"a.jsonl": `{"doc":"一二三四","key":"k"}`},
			datasets.DocumentSource{TextField: "doc", IDField: "key"},
			[]datasets.Document{{ID: "k", Text: "一二三四", Group: "k", Kind: "jsonl", Lang: "zh"}},
		},
		"gzip and zstd are undone": {
			map[string]string{"a.jsonl.gz": gzipped(`{"text":"one"}`), "b.txt.zst": zstded("two")},
			datasets.DocumentSource{},
			[]datasets.Document{
				{ID: "a.jsonl.gz:1", Text: "one", Group: "a.jsonl.gz:1", Kind: "jsonl", Lang: "en"},
				{ID: "b.txt.zst", Text: "two", Title: "b.txt.zst", Group: "b.txt.zst", Kind: "text", Lang: "en"},
			},
		},
		"text with a byte order mark and foreign line ends": {
			map[string]string{"a.txt": "\ufeffone\r\ntwo\rthree", "b.txt": "\xff\xfeh\x00i\x00", "c.txt": "\xfe\xff\x00h\x00i", "d.txt": "\xff\xfe\x00\x00h\x00\x00\x00"},
			datasets.DocumentSource{},
			[]datasets.Document{
				{ID: "a.txt", Text: "one\ntwo\nthree", Title: "a.txt", Group: "a.txt", Kind: "text", Lang: "en"},
				{ID: "b.txt", Text: "hi", Title: "b.txt", Group: "b.txt", Kind: "text", Lang: "en"},
				{ID: "c.txt", Text: "hi", Title: "c.txt", Group: "c.txt", Kind: "text", Lang: "en"},
				{ID: "d.txt", Text: "h", Title: "d.txt", Group: "d.txt", Kind: "text", Lang: "en"},
			},
		},
		"Markdown is titled by its heading": {
			map[string]string{"a.md": "intro\n\n## The title\n\ntext\n"},
			datasets.DocumentSource{},
			[]datasets.Document{{ID: "a.md", Text: "intro\n\n## The title\n\ntext\n", Title: "The title", Group: "a.md", Kind: "markdown", Lang: "en"}},
		},
		"HTML is its visible text, in its declared encoding": {
			map[string]string{"a.html": "<html><head><meta charset=iso-8859-1><title>A  b</title><style>x</style></head><body><h1>Caf\xe9</h1><p>one <b>two</b><br>three</p><script>no</script><pre>x\n  y</pre><ul><li>i<li>j</ul>"},
			datasets.DocumentSource{},
			[]datasets.Document{{ID: "a.html", Text: "Café\n\none two three\n\nx\n  y\n\ni\n\nj", Title: "A b", Group: "a.html", Kind: "html", Lang: "en"}},
		},
		"Go source is its documented declarations": {
			map[string]string{
				"p/a.go":      "// Copyright.\n\n// Package p is.\npackage p\n\nimport \"fmt\"\n\n// F does.\nfunc F() { fmt.Println() }\n\nfunc bare() {}\n\n// C is.\nconst C = 1\n",
				"p/a_test.go": "package p\n\n// T is.\nfunc T() {}\n", "p/gen.go": "// Code generated by x. DO NOT EDIT.\n\npackage p\n\n// G is.\nfunc G() {}\n",
				"p/testdata/x.go": "not go", "p/none.go": "package p\n\nfunc undocumented() {}\n",
			},
			datasets.DocumentSource{Format: datasets.FormatGo},
			[]datasets.Document{{ID: "p/a.go", Text: "package p\n\n// Package p is.\n\n// F does.\nfunc F() { fmt.Println() }\n\n// C is.\nconst C = 1", Title: "package p", Group: "p", Kind: "go", Lang: "en"}},
		},
		"line directives do not move Go declarations": {
			map[string]string{"a.go": "package p\n\n//line other.y:900\n\n// F does.\nfunc F() {}\n"},
			datasets.DocumentSource{},
			[]datasets.Document{{ID: "a.go", Text: "package p\n\n// F does.\nfunc F() {}", Title: "F", Group: ".", Kind: "go", Lang: "en"}},
		},
		"patterns choose files": {
			map[string]string{"a/b/c.txt": "c", "a/d.txt": "d", "e.txt": "e", "a/b/x.txt": "x"},
			datasets.DocumentSource{Include: []string{"a/**/*.txt"}, Exclude: []string{"**/x.txt"}},
			[]datasets.Document{
				{ID: "a/b/c.txt", Text: "c", Title: "c.txt", Group: "a/b/c.txt", Kind: "text", Lang: "en"},
				{ID: "a/d.txt", Text: "d", Title: "d.txt", Group: "a/d.txt", Kind: "text", Lang: "en"},
			},
		},
		"files of unknown kinds are left out": {
			map[string]string{"a.png": "\x89PNG", "b.unknown": "x"}, datasets.DocumentSource{}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, bad := readAll(t, files(tt.files), tt.source, 0)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if len(bad) > 0 {
				t.Errorf("not read: %q", bad)
			}
		})
	}
}

func TestParquetRowsAreDocuments(t *testing.T) {
	for _, name := range []string{"a.parquet", "a.parquet.zst"} {
		content := parqueted(t)
		if strings.HasSuffix(name, ".zst") {
			content = zstded(content)
		}
		docs, bad := readAll(t, files(map[string]string{name: content}), datasets.DocumentSource{TextField: "body"}, 0)
		var got []string
		for _, d := range docs {
			got = append(got, d.ID+"="+d.Text)
		}
		if diff := cmp.Diff([]string{"1=one", "4=four"}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{name + `:2: column "body" is null`, name + ":3: has a NUL byte at 3, so it is no text; exclude it or convert it"}, bad); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBadInputIsNamedByFileAndLine(t *testing.T) {
	for name, tt := range map[string]struct {
		file, content, want string
		source              datasets.DocumentSource
	}{
		"a broken JSON line":          {"a.jsonl", "{\"text\":\"x\"}\n{\"text\":\n", "a.jsonl:2: is broken JSON", datasets.DocumentSource{}},
		"a line that is no object":    {"a.jsonl", "[1]\n", "a.jsonl:1: is a list where an object is expected", datasets.DocumentSource{}},
		"a missing field":             {"a.jsonl", "{\"body\":\"x\"}\n", `a.jsonl:1: has no field "text"; set text_field`, datasets.DocumentSource{}},
		"a text that is a number":     {"a.jsonl", "{\"text\":5}\n", `a.jsonl:1: field "text" is not a string`, datasets.DocumentSource{}},
		"a text that is null":         {"a.jsonl", "{\"text\":null}\n", `a.jsonl:1: field "text" is not a string`, datasets.DocumentSource{}},
		"an ID that is a list":        {"a.jsonl", "{\"text\":\"x\",\"id\":[]}\n", `a.jsonl:1: field "id" is neither a string nor a number`, datasets.DocumentSource{}},
		"an escaped NUL":              {"a.jsonl", "{\"text\":\"x\\u0000\"}\n", "a.jsonl:1: field \"text\" has a NUL byte", datasets.DocumentSource{}},
		"invalid UTF-8 in JSON":       {"a.jsonl", "{\"text\":\"x\"}\n{\"text\":\"\xe9\"}\n", "a.jsonl:2: is not UTF-8: byte 0xe9", datasets.DocumentSource{}},
		"half a character in JSON":    {"a.jsonl", "{\"text\":\"x\\ud83d\"}\n", "a.jsonl:1: has half a surrogate pair", datasets.DocumentSource{}},
		"a line over the limit":       {"a.jsonl", "{\"text\":\"" + strings.Repeat("x", 2000) + "\"}\n", "a.jsonl:1: the line is longer than max_bytes (1000)", datasets.DocumentSource{}},
		"a text over the limit":       {"a.txt", strings.Repeat("x", 2000), "a.txt: the document is larger than max_bytes (1000)", datasets.DocumentSource{}},
		"an unknown encoding":         {"a.txt", "caf\xe9", "a.txt: is not UTF-8: byte 0xe9 at 3; convert it", datasets.DocumentSource{}},
		"a binary":                    {"a.txt", "\x7fELF\x00", "a.txt: has a NUL byte at 4", datasets.DocumentSource{}},
		"HTML with NUL":               {"a.html", "<p>x\x00", "a.html: has a NUL byte at 4", datasets.DocumentSource{}},
		"Go that does not parse":      {"a.go", "package p\nfunc", "a.go: is not Go", datasets.DocumentSource{}},
		"a cut gzip":                  {"a.jsonl.gz", gzipped(`{"text":"one"}`)[:20], "a.jsonl.gz:1: cannot be read", datasets.DocumentSource{}},
		"a gzip that is none":         {"a.txt.gz", "plain", "a.txt.gz: is not gzip", datasets.DocumentSource{}},
		"a zstd that is none":         {"a.txt.zst", "plain", "a.txt.zst: cannot be read", datasets.DocumentSource{}},
		"a Parquet file that is none": {"a.parquet", "PAR1 no PAR1", "a.parquet: is no Parquet file", datasets.DocumentSource{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, bad := readAll(t, files(map[string]string{tt.file: tt.content}), tt.source, 1000)
			if len(bad) != 1 || !strings.HasPrefix(bad[0], tt.want) {
				t.Errorf("got %q, want %q", bad, tt.want)
			}
		})
	}
	t.Run("a Parquet column that is missing", func(t *testing.T) {
		_, bad := readAll(t, files(map[string]string{"a.parquet": parqueted(t)}), datasets.DocumentSource{}, 0)
		if len(bad) != 1 || !strings.Contains(bad[0], `set text_field to one of [[id] [body]]`) {
			t.Errorf("got %q", bad)
		}
	})
}

// huge is a file system with one file: a gigabyte of x, then an end.
type huge struct{ name, end string }

func (h huge) Open(name string) (fs.File, error) {
	if name == "." {
		return fstest.MapFS{h.name: {}}.Open(".")
	}
	return &hugeFile{left: 1 << 30, end: strings.NewReader(h.end)}, nil
}

type hugeFile struct {
	left int
	end  *strings.Reader
}

func (f *hugeFile) Read(p []byte) (int, error) {
	if f.left == 0 {
		return f.end.Read(p)
	}
	n := min(len(p), f.left)
	for i := range p[:n] {
		p[i] = 'x'
	}
	f.left -= n
	return n, nil
}
func (f *hugeFile) Close() error               { return nil }
func (f *hugeFile) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

func TestAGigabyteDocumentIsRefusedInBoundedMemory(t *testing.T) {
	for _, tt := range []struct {
		fsys huge
		docs int
	}{{huge{"a.txt", ""}, 0}, {huge{"a.jsonl", "\n{\"text\":\"after\"}\n"}, 1}} {
		docs, bad := readAll(t, tt.fsys, datasets.DocumentSource{}, 1<<20)
		if len(docs) != tt.docs || len(bad) != 1 || !strings.Contains(bad[0], "max_bytes (1048576)") {
			t.Errorf("%s: %d documents, %q", tt.fsys.name, len(docs), bad)
		}
	}
}

func TestPartsCoverTheTextWithinTheLimitAndAreMostlyShort(t *testing.T) {
	var b strings.Builder
	for i := range 3000 {
		b.WriteString(strings.Repeat("word ", 1+i%17) + "\n\n")
	}
	b.WriteString(strings.Repeat("longword", 400)) // no place to cut but between characters
	docs, _ := readAll(t, files(map[string]string{"a.txt": b.String()}), datasets.DocumentSource{PartBytes: 1000}, 0)
	var sizes []int
	var all strings.Builder
	ids := map[string]bool{}
	for _, d := range docs {
		sizes = append(sizes, len(d.Text))
		all.WriteString(d.Text + " ")
		if len(d.Text) > 1000 {
			t.Fatalf("%s has %d bytes", d.ID, len(d.Text))
		}
		if ids[d.ID] || d.Group != "a.txt" {
			t.Fatalf("%s twice, or of group %s", d.ID, d.Group)
		}
		ids[d.ID] = true
	}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
	if squeeze(all.String()) != squeeze(b.String()) {
		t.Error("the parts are not the text")
	}
	short, long := 0, 0
	for _, n := range sizes {
		if n < 250 {
			short++
		}
		if n > 750 {
			long++
		}
	}
	if short < len(sizes)/2 || long == 0 {
		t.Errorf("%d of %d parts are under a quarter of the limit, %d over three quarters", short, len(sizes), long)
	}
}

func TestAGoFunctionTooLongForAPartLosesItsBody(t *testing.T) {
	source := "package p\n\n// F does.\nfunc F(n int) error {\n" + strings.Repeat("\tprintln(n)\n", 100) + "\treturn nil\n}\n"
	docs, _ := readAll(t, files(map[string]string{"a.go": source}), datasets.DocumentSource{PartBytes: 200}, 0)
	if len(docs) != 1 || docs[0].Text != "package p\n\n// F does.\nfunc F(n int) error" {
		t.Errorf("got %+v", docs)
	}
}

func TestLocalSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "[one].txt"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "two.txt"), []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CORPUS", dir)
	for path, want := range map[string]int{dir: 2, "$CORPUS/[one].txt": 1, "${CORPUS}": 2} {
		s, err := Local(datasets.DocumentSource{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if docs, _ := readAll(t, s.FS, s.DocumentSource, 0); len(docs) != want {
			t.Errorf("%s: %d documents, want %d", path, len(docs), want)
		}
	}
	if _, err := Local(datasets.DocumentSource{Path: filepath.Join(dir, "missing")}); err == nil || !strings.Contains(err.Error(), "check the path") {
		t.Errorf("got %v", err)
	}
	if _, err := Local(datasets.DocumentSource{Path: "$GOROOT/src"}); err != nil {
		t.Error(err)
	}
}

func TestUnreadableFilesAreBadInput(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if _, bad := readAll(t, os.DirFS(dir), datasets.DocumentSource{}, 0); len(bad) != 1 || !strings.Contains(bad[0], "cannot be opened") {
		t.Errorf("got %q", bad)
	}
}

func TestDigestIsOfNamesAndContents(t *testing.T) {
	digest := func(contents map[string]string) string {
		s := Source{FS: files(contents)}
		entries, err := Entries(context.Background(), s)
		if err == nil {
			err = Hash(context.Background(), s, entries)
		}
		if err != nil {
			t.Fatal(err)
		}
		return Digest(entries)
	}
	base := digest(map[string]string{"a.txt": "1", "b.txt": "2"})
	for name, contents := range map[string]map[string]string{
		"another content":    {"a.txt": "1", "b.txt": "3"},
		"another name":       {"a.txt": "1", "c.txt": "2"},
		"contents exchanged": {"a.txt": "2", "b.txt": "1"},
	} {
		if digest(contents) == base {
			t.Errorf("%s: the same digest", name)
		}
	}
	if digest(map[string]string{"a.txt": "1", "b.txt": "2", "not-read.png": "3"}) != base {
		t.Error("a file that is not read changes the digest")
	}
}

func TestReadingStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cancel()
	_, err := Read(ctx, Source{FS: files(map[string]string{"a.txt": "x"})}, 10, func(datasets.Document) error { return nil }, func(e *InputError) error { return e })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzReaders(f *testing.F) {
	f.Add("a.jsonl", "{\"text\":\"x\"}\n{")
	f.Add("a.html", "<p>a<pre>b</p><table><tr>")
	f.Add("a.go", "package p\n\n// F.\nfunc F() {}\n")
	f.Add("a.md", "# T\n\nx")
	f.Add("a.txt", "\xff\xfeh\x00")
	f.Add("a.txt.gz", "\x1f\x8b\x08")
	f.Add("a.parquet", "PAR1")
	f.Fuzz(func(t *testing.T, name, content string) {
		if !fs.ValidPath(name) || name == "." {
			return
		}
		docs, _ := readAll(t, files(map[string]string{name: content}), datasets.DocumentSource{PartBytes: 100}, 1<<16)
		for _, d := range docs {
			if err := checkText([]byte(d.Text)); err != nil {
				t.Fatalf("%q: the document %v", content, err)
			}
		}
	})
}
