package reports

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCorrelationsEqualSciPys(t *testing.T) {
	dir := filepath.Join("..", "..", "shared", "cases", "correlation")
	b, err := os.ReadFile(filepath.Join(dir, "scipy_reference.json"))
	if err != nil {
		t.Skip("no reference cases beside the repository")
	}
	var want map[string]Correlation
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for pair, w := range want {
		x, y, _ := strings.Cut(pair, "~")
		f, err := os.Open(filepath.Join(dir, "eval_scores_xsum_summaries.csv"))
		if err != nil {
			t.Fatal(err)
		}
		columns, err := ReadColumns(f, x, y)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		a, b, _ := columns.Pairs(0, 1)
		got, err := Correlate(a, b)
		if err != nil {
			t.Fatal(err)
		}
		if got.N != w.N || math.Abs(got.Spearman-w.Spearman) > 1e-9 || math.Abs(got.KendallTauB-w.KendallTauB) > 1e-9 {
			t.Errorf("%s: %+v, SciPy has %+v", pair, got, w)
		}
	}
}

// The O(n²) definition of τ-b is the oracle: pairs ordered alike minus unlike, over the
// geometric mean of the pairs untied in x and in y.
func TestKendallEqualsItsDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 200 {
		n := 2 + rng.IntN(40)
		x, y := make([]float64, n), make([]float64, n)
		for i := range x {
			x[i], y[i] = float64(rng.IntN(6)), float64(rng.IntN(6))
		}
		x[0], x[1], y[0], y[1] = 0, 1, 0, 1 // never constant
		var balance, untiedX, untiedY float64
		for i := range x {
			for j := range i {
				sx, sy := sign(x[i]-x[j]), sign(y[i]-y[j])
				balance += sx * sy
				untiedX += sx * sx
				untiedY += sy * sy
			}
		}
		got, err := Correlate(x, y)
		if err != nil {
			t.Fatal(err)
		}
		if want := balance / math.Sqrt(untiedX*untiedY); math.Abs(got.KendallTauB-want) > 1e-12 {
			t.Fatalf("trial %d: %v, the definition gives %v", trial, got.KendallTauB, want)
		}
	}
}

func sign(v float64) float64 {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return 0
}

func TestCorrelationDependsOnOrderAlone(t *testing.T) {
	x := []float64{1, 2, 2, 4, 5, 9}
	y := []float64{2, 1, 3, 3, 8, 7}
	want, err := Correlate(x, y)
	if err != nil {
		t.Fatal(err)
	}
	cubed := make([]float64, len(x))
	for i, v := range x {
		cubed[i] = v*v*v - 100
	}
	got, err := Correlate(cubed, y)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if same, err := Correlate(x, cubed); err != nil || same.Spearman != 1 || same.KendallTauB != 1 {
		t.Error("perfect agreement is not 1:", same, err)
	}
}

func TestCorrelationsThatAreNotDefinedAreErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		x, y []float64
		want string
	}{
		"lists of different lengths": {[]float64{1, 2}, []float64{1}, "2 and 1 values"},
		"a single pair":              {[]float64{1}, []float64{1}, "at least two pairs of values are needed, there are 1"},
		"a constant list":            {[]float64{1, 2}, []float64{3, 3}, "the second list is constant (all values are 3)"},
		"a value that is missing":    {[]float64{1, math.NaN()}, []float64{3, 4}, "the first list's value 2 is NaN; leave the pair out"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Correlate(tt.x, tt.y)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
	_, err := Correlate([]float64{1, 2}, []float64{3, 3})
	var constant *ConstantError
	if !errors.As(err, &constant) || constant.Value != 3 {
		t.Error("a constant list is not a ConstantError:", err)
	}
}

func TestReadColumns(t *testing.T) {
	for name, tt := range map[string]struct {
		csv  string
		want []float64 // x of complete rows
		skip []int
		err  string
	}{
		"values and missing values": {csv: "id,x,y\na,1,2\nb,,3\nc,NA,3\nd,4,5\n", want: []float64{1, 4}, skip: []int{3, 4}},
		"a byte order mark":         {csv: "\ufeffx,y\n1,2\n", want: []float64{1}},
		"quoted fields":             {csv: "\"x\",y\n\"1.5\",2\n", want: []float64{1.5}},
		"an unknown column":         {csv: "x,z\n1,2\n", err: `there is no column "y"; the file has x, z`},
		"two columns of one name":   {csv: "x,id,y,x\n1,a,2,3\n", err: `columns 1 and 4 are both named "x"; rename one`},
		"two others of one name":    {csv: "x,id,y,id\n1,a,2,3\n", want: []float64{1}},
		"an empty file":             {csv: "", err: "the file is empty; the first line must name the columns"},
		"only a header":             {csv: "x,y\n", err: "there are no rows below the header"},
		"a word among numbers":      {csv: "x,y\n1,2\n1,good\n", err: `line 3, column "y": "good" is not a finite number`},
		"an infinite number":        {csv: "x,y\n1,inf\n", err: `"inf" is not a finite number`},
		"a row that is too short":   {csv: "x,y\n1\n", err: "record on line 2: wrong number of fields"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ReadColumns(strings.NewReader(tt.csv), "x", "y")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			x, _, skip := c.Pairs(0, 1)
			if diff := cmp.Diff(tt.want, x); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.skip, skip); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzReadColumns(f *testing.F) {
	for _, s := range []string{"x,y\n1,2\n", "x,y\n,\n", "\ufeffx,y\r\n\"1\",2\r\n", "x\n", "", "x,y\n1e999,2\n", "\"x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ReadColumns(strings.NewReader(s), "x", "y")
		if err != nil {
			return
		}
		x, y, skip := c.Pairs(0, 1)
		if len(x) != len(y) || len(x)+len(skip) != len(c.Lines) {
			t.Errorf("%d and %d values, %d skipped, of %d rows", len(x), len(y), len(skip), len(c.Lines))
		}
		if r, err := Correlate(x, y); err == nil && (math.Abs(r.Spearman) > 1 || math.Abs(r.KendallTauB) > 1 || r.Spearman != r.Spearman) {
			t.Errorf("correlation out of range: %+v", r)
		}
	})
}

func FuzzParseMetric(f *testing.F) {
	for _, s := range []string{"loss", "loss/1-7", "share/128+", "loss/5", "/", "share", "loss/9-2", "a/b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMetric(s)
		if err != nil {
			return
		}
		again, err := ParseMetric(m.String())
		if err != nil {
			t.Fatalf("%q prints as %q, which does not parse: %v", s, m.String(), err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkCorrelate(b *testing.B) {
	rng := rand.New(rand.NewPCG(3, 4))
	x, y := make([]float64, 10_000), make([]float64, 10_000)
	for i := range x {
		x[i], y[i] = rng.Float64(), float64(rng.IntN(10))
	}
	for b.Loop() {
		if _, err := Correlate(x, y); err != nil {
			b.Fatal(err)
		}
	}
}

// Three people and two judges, made up so that every number can be checked by hand:
// the first judge ranks as people do and is one point too kind to long answers.
const ratingsCSV = `item,anna,ben,judge,lenient,tokens
1,1,2,1.5,5,10
2,3,,3,5,20
3,4,4,4,5,30
4,5,6,6.5,5,100
5,7,7,8,5,200
6,,9,10,5,300
`

func TestJudgeTable(t *testing.T) {
	r, err := ReadRatings(strings.NewReader(ratingsCSV), []Rater{
		{Name: "anna", Human: true}, {Name: "ben", Human: true},
		{Name: "judge", Label: "GPT-4 with examples", Published: "gpt-4+few-shot"}, {Name: "lenient"},
	}, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	table, err := JudgeTable(r, 1, 200)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Render(Text, table)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "judge.txt", got)
	judge := table.Rows[1].Cells
	if judge[1].Value != 1 || judge[2].Value != 1 {
		t.Errorf("a judge that ranks as people do has ρ %v and τ %v", judge[1].Value, judge[2].Value)
	}
	if judge[5].Value != 0 || judge[7].Value != 1 {
		t.Errorf("bias at short and long answers is %v and %v, want 0 and 1", judge[5].Value, judge[7].Value)
	}
	if c := table.Rows[2].Cells[1]; c.HasValue() {
		t.Error("a constant judge has a correlation:", c.Value)
	}
}

func TestRatingsThatCannotBeComparedAreErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		raters []Rater
		want   string
	}{
		"judges without people":   {[]Rater{{Name: "judge"}}, "no rater is human"},
		"one person and no judge": {[]Rater{{Name: "anna", Human: true}}, "nothing can be compared"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ReadRatings(strings.NewReader(ratingsCSV), tt.raters, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := JudgeTable(r, 1, 10); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}
