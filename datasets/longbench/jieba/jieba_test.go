package jieba

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/testenv/refdata"
)

// installed is the machine's own jieba, loaded once for all tests.
var installed = sync.OnceValues(func() (*Dictionary, error) { return Open("") })

func needInstalled(tb testing.TB) *Dictionary {
	tb.Helper()
	d, err := installed()
	if errors.Is(err, ErrNotFound) {
		tb.Skip("no jieba dictionary on this machine: ", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestCutsEqualPythonJieba(t *testing.T) {
	f, err := os.Open(refdata.Path(t, "cases/jieba_cut.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := needInstalled(t)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	n := 0
	for ; lines.Scan(); n++ {
		var c struct {
			Text string
			Cut  []string
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.Cut, d.Cut(c.Text)); diff != "" {
			t.Errorf("line %d: %s", n+1, diff)
		}
	}
	if n == 0 {
		t.Fatal("no cases")
	}
}

// tiny is a dictionary of our own making with a model in which a word is two
// characters long: what follows from it can be checked by hand.
func tiny() fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		DictFile:  file("天空 10 n\n天空之城 4 n\n之 100 u\n城 5 n\n红花 8 n\n花红 8 n\n红 8\n花 8\n一 3\n二 3\n一二 0\nC++ 2 nz\n"),
		StartFile: file("from __future__ import unicode_literals\nP={'B': -0.5,\n 'E': -3.14e+100,\n 'M': -3.14e+100,\n 'S': -1.5}\n"),
		TransFile: file("P={'B': {'E': -0.1, 'M': -3.0},\n 'E': {'B': -0.1, 'S': -3.0},\n 'M': {'E': -0.1, 'M': -3.0},\n 'S': {'B': -0.5, 'S': -1.0}}\n"),
		EmitFile:  file("P={'B': {'\\u7532': -1.0, '乙': -1.0},\n 'E': {'乙': -1.0},\n 'M': {'乙': -2.0},\n 'S': {'\\u7532': -5.0}}\n"),
	}
}

func TestCutRules(t *testing.T) {
	d, err := Load(tiny())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                 {"", []string{}},
		"the longest likely word": {"天空之城", []string{"天空之城"}},
		"of equally likely cuts the longer first":    {"红花红", []string{"红花", "红"}},
		"spaces one by one, a line break as one":     {"红 \r\n\n花", []string{"红", " ", "\r\n", "\n", "花"}},
		"punctuation by character":                   {"红，。花", []string{"红", "，", "。", "花"}},
		"Latin words with their signs":               {"C++红", []string{"C++", "红"}},
		"numbers with fraction and percent":          {"12.5%-x.y", []string{"12.5%", "-", "x", ".", "y"}},
		"unknown characters by the model":            {"甲乙甲乙", []string{"甲乙", "甲乙"}},
		"a word that does not end still comes out":   {"甲乙甲", []string{"甲乙", "甲"}},
		"frequency 0 is no word":                     {"一二", []string{"一", "二"}},
		"Han beyond U+9FD5 is not looked up":         {"\u9fd6红", []string{"\u9fd6", "红"}},
		"an information separator is a space, alone": {"红\x1f花", []string{"红", "\x1f", "花"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, d.Cut(tt.text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadRejectsOtherFiles(t *testing.T) {
	for name, tt := range map[string]struct{ file, data, want string }{
		"a word without a frequency":       {DictFile, "天空 10 n\n之\n", DictFile + ":2"},
		"a frequency that is no number":    {DictFile, "天空 many n\n", DictFile + ":1"},
		"an empty word list":               {DictFile, "", "no words"},
		"bytes that are not UTF-8":         {DictFile, "\xff\xfe 1 n\n", DictFile + ":1"},
		"a model without assignment":       {EmitFile, "import os\n", EmitFile},
		"a probability above one":          {EmitFile, "P={'B': {'甲': 0.5}}", "log probability"},
		"a state of another model":         {StartFile, "P={'X': -1.0}", "none of B, E, M, S"},
		"a table cut off in the middle":    {TransFile, "P={'B': {'E': -0.1", TransFile},
		"a key of more than one character": {EmitFile, "P={'B': {'甲乙': -0.5}}", "one character"},
	} {
		t.Run(name, func(t *testing.T) {
			files := tiny()
			files[tt.file] = &fstest.MapFile{Data: []byte(tt.data)}
			if _, err := Load(files); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not mention %q", err, tt.want)
			}
		})
	}
	files := tiny()
	delete(files, EmitFile)
	if _, err := Load(files); !errors.Is(err, os.ErrNotExist) {
		t.Error("missing model:", err)
	}
}

func TestFindPrefersWhatTheUserNames(t *testing.T) {
	write := func(dir string) string {
		for name, file := range tiny() {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, file.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	named, env, empty := write(t.TempDir()), write(t.TempDir()), t.TempDir()
	site := t.TempDir()
	inSite := write(filepath.Join(site, "jieba"))
	t.Setenv(EnvDir, env)
	for name, tt := range map[string]struct{ dir, want string }{
		"the argument first":                    {named, named},
		"then the environment":                  {"", env},
		"a site-packages directory holds jieba": {site, inSite},
	} {
		if got, err := Find(tt.dir); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
		}
	}
	if _, err := Find(empty); err == nil || !strings.Contains(err.Error(), "--jieba") {
		t.Error("a named directory without dictionary:", err)
	}
	t.Setenv(EnvDir, "")
	t.Setenv("PYTHONPATH", site)
	t.Setenv("XDG_CACHE_HOME", empty)
	if got, err := Find(""); err != nil || got != inSite {
		t.Errorf("an installed package: %q, %v", got, err)
	}
}

// Printed by C's log; math.Log rounds log 3 the other way.
func TestLogIntegerRoundsAsC(t *testing.T) {
	for n, want := range map[uint64]float64{
		1: 0, 2: 0x1.62e42fefa39efp-1, 3: 0x1.193ea7aad030bp+0, 10: 0x1.26bb1bbb55516p+1,
		60101967: 0x1.1e95b8bb84672p+4,
	} {
		if got := logInteger(n); got != want {
			t.Errorf("log %d = %x, want %x", n, got, want)
		}
	}
}

func FuzzCutLosesNothing(f *testing.F) {
	d, err := Load(tiny())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "天空之城", "甲乙C++ 12.5%\r\n\u3000x", "\xff红"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := strings.Join(d.Cut(s), ""); got != s {
			t.Errorf("cut of %q joins to %q", s, got)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	for _, file := range []string{StartFile, TransFile, EmitFile} {
		f.Add(tiny()[file].Data)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		_ = parseTable(src, 2, func(path []rune, v float64) error {
			if len(path) != 2 || v > 0 {
				t.Errorf("stored %q = %v", string(path), v)
			}
			return nil
		})
	})
}

func FuzzLoadDictionary(f *testing.F) {
	f.Add([]byte("天空 10 n\n天 3\n"))
	f.Add([]byte("a 1\r\na 0\n"))
	f.Fuzz(func(t *testing.T, dict []byte) {
		files := tiny()
		files[DictFile] = &fstest.MapFile{Data: dict}
		if d, err := Load(files); err == nil {
			d.Cut("天空a甲")
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	needInstalled(b)
	for b.Loop() {
		if _, err := Open(""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCut(b *testing.B) {
	d := needInstalled(b)
	text := strings.Repeat("厦门大学的学生们在讨论6.5亿元的项目。", 20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		d.Cut(text)
	}
}
