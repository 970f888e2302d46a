package reports

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", path, diff)
	}
}

func published(v float64) *float64 { return &v }

// everyKind is a table with a cell of every kind.
func everyKind() *Table {
	return &Table{
		Name:    "kinds",
		Title:   "Every kind of cell, 100 % & <escaped> | _piped_",
		Caption: "A caption that says what the rows have in common.",
		Columns: []Column{
			{Name: "Method", Text: true},
			{Name: "Chat", Unit: "1–10", Decimals: 2, Better: Higher, Group: "Long", Marks: []string{NoteOffline}},
			{Name: "QA", Unit: "%", Decimals: 1, Better: Higher, Group: "Long"},
			{Name: "Δ", Decimals: 3, Signed: true},
			{Name: "Tokens", Decimals: 0},
		},
		Marks: []string{NoteTiny},
		Rows: []Row{
			{Section: "Llama-2", Cells: []Cell{
				Label("naive"),
				{Value: 5.95, N: 50, Low: 5.7, High: 6.1, Published: published(5.95), Sources: []string{"scores/0123456789ab/1"}},
				{Value: 62.8, N: 50, Failed: 2, Truncated: 1},
				{Value: -0.0001, N: 50},
				Number(1234567),
			}},
			{Section: "Llama-2", Minor: true, Cells: []Cell{
				Label("seed 1"), {Value: 5.8, N: 20, Wanted: 50, Incomplete: true}, Unmeasured(), Blank(), Number(999),
			}},
			{Section: "ChatGLM3", Marks: []string{"odd"}, Cells: []Cell{
				Label("packing"),
				{Value: 6.21, N: 50, Low: 6, High: 6.4, Best: true, Published: published(5.76)},
				{Incomplete: true, Published: published(65)},
				{Value: 0.125, N: 50, Low: 0.1, High: 0.2},
				Number(0),
			}},
		},
		Footnotes: []Footnote{{"odd", "odd: a footnote of this table"}, {"unused", "never printed"}},
	}
}

func TestEveryFormatPrintsEveryKindOfCell(t *testing.T) {
	for _, f := range Formats() {
		t.Run(string(f), func(t *testing.T) {
			got, err := Render(f, everyKind())
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "kinds"+f.Extension(), got)
			again, err := Render(f, everyKind())
			if err != nil || !bytes.Equal(got, again) {
				t.Error("the second rendering differs from the first", err)
			}
		})
	}
}

func TestJSONOfATableIsTheTable(t *testing.T) {
	want := []*Table{everyKind()}
	b, err := Render(JSON, want...)
	if err != nil {
		t.Fatal(err)
	}
	var got []*Table
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCSVHasOneRecordForEachCell(t *testing.T) {
	b, err := Render(CSV, everyKind(), everyKind())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte("\r\n")) {
		t.Error("lines must end in CRLF (RFC 4180)")
	}
	records, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + 2*3*4; len(records) != want {
		t.Errorf("%d records, want %d", len(records), want)
	}
}

func TestTablesThatWouldPrintNonsenseAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Table)
		want   string
	}{
		"a short row":                   {func(t *Table) { t.Rows[1].Cells = t.Rows[1].Cells[:2] }, "row 2 has 2 cells, the table has 5 columns"},
		"a value that is not a number":  {func(t *Table) { t.Rows[0].Cells[1].Value = math.NaN() }, `row 1, column "Chat" holds NaN; a value that could not be computed must be marked incomplete`},
		"a value outside its interval":  {func(t *Table) { t.Rows[0].Cells[1].Low = 5.99 }, "outside its interval"},
		"a footnote nobody defined":     {func(t *Table) { t.Rows[0].Cells[1].Marks = []string{"x"} }, `has footnote "x", which is neither standard nor defined in the table`},
		"a title's undefined footnote":  {func(t *Table) { t.Marks = []string{"x"} }, `the title has footnote "x"`},
		"a column's undefined footnote": {func(t *Table) { t.Columns[1].Marks = []string{"x"} }, `column "Chat" has footnote "x"`},
		"a table without a name":        {func(t *Table) { t.Name = "" }, "has no name"},
	} {
		t.Run(name, func(t *testing.T) {
			table := everyKind()
			tt.change(table)
			_, err := Render(Text, table)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func TestNumbersPrint(t *testing.T) {
	for _, tt := range []struct {
		col  Column
		v    float64
		want string
	}{
		{Column{Decimals: 2}, 5.955, "5.96"},
		{Column{Decimals: 0}, 1234567, "1,234,567"},
		{Column{Decimals: 1}, -1234.56, "\u22121,234.6"},
		{Column{Decimals: 2}, -0.001, "0.00"},
		{Column{Decimals: 2, Signed: true}, 0.5, "+0.50"},
		{Column{Decimals: 2, Signed: true}, 0.001, "0.00"},
		{Column{Decimals: 0}, 999, "999"},
	} {
		if got := tt.col.formatNumber(tt.v); got != tt.want {
			t.Errorf("%v with %d decimals prints %q, want %q", tt.v, tt.col.Decimals, got, tt.want)
		}
	}
}

func TestFootnoteLettersContinueAfterZ(t *testing.T) {
	for i, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 702: "aaa"} {
		if got := letterOf(i); got != want {
			t.Errorf("letter %d is %q, want %q", i, got, want)
		}
	}
}

func TestUnknownNamesSayWhatThereIs(t *testing.T) {
	if _, err := ParseFormat("pdf"); err == nil || !strings.Contains(err.Error(), "text, markdown, latex, csv, json, html") {
		t.Error(err)
	}
	if _, err := Find([]*Table{everyKind()}, "kind"); err == nil || !strings.Contains(err.Error(), "there are: kinds") {
		t.Error(err)
	}
}

func TestValuesMeasuredInPartAreNamed(t *testing.T) {
	study := func(set ScoreSet) *Study {
		return &Study{Kind: KindPaper, Cells: []CellData{{Method: "m", Scores: map[string]ScoreSet{"longbench:lcc": set}}}}
	}
	sample := Sample{ID: "1", Value: 4}
	for name, tt := range map[string]struct {
		set  ScoreSet
		want int
	}{
		"all are there":    {ScoreSet{Samples: []Sample{sample}, Wanted: 1}, 0},
		"some are missing": {ScoreSet{Samples: []Sample{sample}, Wanted: 2}, 1},
		"all failed":       {ScoreSet{Samples: []Sample{{ID: "1", Failed: true}}, Wanted: 1}, 1},
		"another row of the table was not measured": {ScoreSet{Samples: []Sample{sample}}, 0},
	} {
		if got := Incomplete(study(tt.set)); len(got) != tt.want {
			t.Errorf("%s: %q, want %d", name, got, tt.want)
		}
	}
}
