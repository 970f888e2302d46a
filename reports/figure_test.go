package reports

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sampleFigures draws one figure of each kind from made-up numbers.
func sampleFigures(t *testing.T) map[string]*Figure {
	t.Helper()
	out := map[string]*Figure{}
	add := func(f *Figure, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = f
	}
	nan := math.NaN()
	add(Bars(Figure{Name: "bars", Title: "Training time"}, BarChart{
		Groups: []string{"ChatGLM3-6B-64k", "Llama-2-7B-64k", "Llama-2-13B-64k"}, Axis: "hours", Decimals: 1,
		Series: []BarSeries{
			{Name: "naive", Values: []float64{45.4, 67.2, 117.2}},
			{Name: "sorted", Values: []float64{19.1, 23.3, nan}},
			{Name: "packing", Values: []float64{20.5, 23.4, 41.2}, Low: []float64{19, 22, 40}, High: []float64{22, 24, 43}},
		}}))
	add(Bars(Figure{Name: "stacked", Title: "Share of the loss"}, BarChart{
		Groups: []string{"naive", "sorted", "packing", "packing + weighting"}, Axis: "share of the loss (%)", Decimals: 0, Stacked: true,
		Series: []BarSeries{
			{Name: "1-7 tokens", Values: []float64{30, 30, 6, 30}, Colour: rangeColours[0]},
			{Name: "8-31 tokens", Values: []float64{30, 30, 14, 30}, Colour: rangeColours[1]},
			{Name: "32-127 tokens", Values: []float64{25, 25, 30, 25}, Colour: rangeColours[2]},
			{Name: "128+ tokens", Values: []float64{15, 15, 50, 15}, Colour: rangeColours[3]},
		}}))
	var lengths []int
	for i := range 400 {
		lengths = append(lengths, 10+i*i/160)
	}
	add(LengthHistogram(Figure{Name: "lengths", Title: "Lengths"}, lengths))
	var curves []CurveSeries
	for i, name := range []string{"naive", "packing"} {
		s := CurveSeries{Name: name}
		for k := range 120 {
			s.Points = append(s.Points, CurvePoint{Step: k, Loss: 3 + float64(2-i)*math.Exp(-float64(k)/30) + 0.3*math.Sin(float64(k*k))})
		}
		for k := 19; k < len(s.Points); k += 20 {
			s.HeldOut = append(s.HeldOut, CurvePoint{Step: k, Loss: s.Points[k].Loss + 0.4})
		}
		curves = append(curves, s)
	}
	add(LearningCurves(Figure{Name: "curves", Title: "Loss"}, curves, 0.9))
	g := &NeedleGrid{Lengths: []int{1000, 4000, 8000, 16000, 32000, 60000}, Low: 1, High: 10, Unit: "score"}
	for d := range 10 {
		g.Depths = append(g.Depths, float64(d)*100/9)
		var scores []float64
		var n []int
		for l := range g.Lengths {
			scores = append(scores, math.Max(1, 10-float64(l*d)/4))
			n = append(n, (l+2)*(d+3)%7)
		}
		g.Scores, g.N = append(g.Scores, scores), append(g.N, n)
	}
	for i := range g.Depths {
		g.Depths[i] = math.Round(g.Depths[i])
	}
	add(NeedleHeatmap(Figure{Name: "needle", Title: "Needle"}, g))
	return out
}

func TestFiguresAreWellFormedAndRepeatByteForByte(t *testing.T) {
	first, second := sampleFigures(t), sampleFigures(t)
	dates := regexp.MustCompile(`D:(20[0-9]{2})`)
	for name, f := range first {
		t.Run(name, func(t *testing.T) {
			files := map[FigureFormat][]byte{}
			for _, format := range FigureFormats() {
				got, err := f.Encode(format)
				if err != nil {
					t.Fatal(err)
				}
				again, err := second[name].Encode(format)
				if err != nil || !bytes.Equal(got, again) {
					t.Errorf("%s: the same numbers gave other bytes", format)
				}
				if dir := os.Getenv("FIGURES"); dir != "" {
					if err := os.WriteFile(filepath.Join(dir, name+"."+string(format)), got, 0o666); err != nil {
						t.Fatal(err)
					}
				}
				files[format] = got
			}
			if dates.Match(files[PDF]) || !bytes.HasPrefix(files[PDF], []byte("%PDF-")) {
				t.Error("pdf: a date of the day it was drawn, or no PDF")
			}
			if _, err := png.Decode(bytes.NewReader(files[PNG])); err != nil {
				t.Error("png:", err)
			}
			inline, err := f.inlineSVG()
			if err != nil {
				t.Fatal(err)
			}
			d := xml.NewDecoder(strings.NewReader(inline))
			for {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal("svg:", err)
				}
			}
			if !strings.Contains(inline, "var(--ink)") || strings.Contains(inline, inkColour) {
				t.Error("svg: ink does not follow the page's theme")
			}
			if f.Alt == "" {
				t.Error("no description for those who cannot see it")
			}
		})
	}
}

func TestTheTextsOfAnSVGKeepTheirWidthInAnyFont(t *testing.T) {
	for name, f := range sampleFigures(t) {
		b, err := f.Encode(SVG)
		if err != nil {
			t.Fatal(err)
		}
		if texts, fitted := bytes.Count(b, []byte("<text ")), bytes.Count(b, []byte("textLength=")); texts == 0 || texts != fitted {
			t.Errorf("%s: %d of %d texts have a width", name, fitted, texts)
		}
	}
	long := float64(textStyle(10, inkColour).Width("packing & <weighting>"))
	got := string(fitTexts([]byte(`<text x="1" y="2"` + "\n\t" + `style="font-size:10px">packing &amp; &lt;weighting&gt;</text>`)))
	want := fmt.Sprintf(`<text x="1" y="2"`+"\n\t"+`textLength="%.4g" lengthAdjust="spacingAndGlyphs" style="font-size:10px">packing &amp; &lt;weighting&gt;</text>`, long)
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestFiguresWithoutNumbersAreErrors(t *testing.T) {
	f := Figure{Name: "f"}
	for name, draw := range map[string]func() (*Figure, error){
		"no lengths": func() (*Figure, error) { return LengthHistogram(f, nil) },
		"no curves":  func() (*Figure, error) { return LearningCurves(f, []CurveSeries{{Name: "a"}}, 0.9) },
		"no needle":  func() (*Figure, error) { return NeedleHeatmap(f, nil) },
		"only NaN bars": func() (*Figure, error) {
			return Bars(f, BarChart{Groups: []string{"a"}, Series: []BarSeries{{Values: []float64{math.NaN()}}}})
		},
		"unmeasured map": func() (*Figure, error) {
			return NeedleHeatmap(f, &NeedleGrid{Lengths: []int{1}, Depths: []float64{0}, Scores: [][]float64{{0}}, N: [][]int{{0}}, High: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := draw(); !errors.Is(err, ErrNoData) {
				t.Errorf("error %v, want ErrNoData", err)
			}
		})
	}
	if _, err := Bars(f, BarChart{Groups: []string{"a", "b"}, Series: []BarSeries{{Name: "s", Values: []float64{1}}}}); err == nil {
		t.Error("a series with too few values was drawn")
	}
	if _, err := LearningCurves(f, []CurveSeries{{Points: []CurvePoint{{Step: 0, Loss: 1}}}}, 1); err == nil {
		t.Error("a decay of 1 was accepted")
	}
}

func TestBarsThatLackSamplesSaySo(t *testing.T) {
	s := BarSeries{Name: "ours"}
	s.add(Cell{Value: 3, N: 9})
	s.add(Cell{Value: 2, N: 4, Wanted: 9, Incomplete: true})
	f, err := Bars(Figure{Title: "Scores", Caption: "Ours."}, BarChart{Groups: []string{"a", "b"}, Series: []BarSeries{s}, Decimals: 1})
	if err != nil {
		t.Fatal(err)
	}
	if f.Alt != "Scores. a: ours 3.0; b: ours 2.0 (incomplete)." || f.Caption != "Ours. Hollow bars lack samples and are not final." || !slices.Contains(f.Marks, NoteIncomplete) {
		t.Errorf("%q, %q, %q", f.Alt, f.Caption, f.Marks)
	}
	whole := BarSeries{Name: "ours"}
	whole.add(Cell{Value: 3, N: 9})
	if f, err := Bars(Figure{Title: "Scores"}, BarChart{Groups: []string{"a"}, Series: []BarSeries{whole}}); err != nil || f.Caption != "" || len(f.Marks) > 0 {
		t.Errorf("%q, %q, %v", f.Caption, f.Marks, err)
	}
}

func TestEMAIsCorrectedForItsStart(t *testing.T) {
	got := EMA([]CurvePoint{{Step: 0, Loss: 4}, {Step: 1, Loss: 2}, {Step: 2, Loss: 2}}, 0.5)
	if diff := cmp.Diff([]float64{4, 8. / 3, 16. / 7}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNeedleColoursAreThePapers(t *testing.T) {
	g := &NeedleGrid{Low: 1, High: 10}
	for v, want := range map[float64]string{1: "#F0496E", 5.5: "#EBB839", 10: "#0CD79F", 0: "#F0496E", 11: "#0CD79F"} {
		if got := g.colour(v); got != hexColour(want) {
			t.Errorf("score %v has colour %v, want %s", v, got, want)
		}
	}
}

// Losses that differ in the last bit only once made ticks without end.
func TestACurvesDescriptionSaysWhichWayItWent(t *testing.T) {
	for claim, tt := range map[string]struct {
		last float64
		want string
	}{
		"down":                      {1, "t. Smoothed: m falls from 2.00 to 1.00."},
		"up":                        {3, "t. Smoothed: m rises from 2.00 to 3.00."},
		"less than the digits show": {2.001, "t. Smoothed: m ends where it began, at 2.00."},
	} {
		f, err := LearningCurves(Figure{Name: "curve", Title: "t"}, []CurveSeries{{Name: "m", Points: []CurvePoint{{Step: 1, Loss: 2}, {Step: 2, Loss: tt.last}}}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if f.Alt != tt.want {
			t.Errorf("%s: %q, want %q", claim, f.Alt, tt.want)
		}
	}
}

func TestACurveThatDoesNotMoveIsDrawn(t *testing.T) {
	flat := 5.7117042540
	f, err := LearningCurves(Figure{Name: "curve", Title: "t"}, []CurveSeries{{Name: "m", Points: []CurvePoint{{Step: 1, Loss: flat}, {Step: 2, Loss: math.Nextafter(flat, 6)}}}}, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	svg, err := f.Encode(SVG)
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{">5.6<", ">5.8<"} {
		if !strings.Contains(string(svg), label) {
			t.Errorf("the axis lacks %s:\n%s", label, svg)
		}
	}
	if n := len(niceTicks{}.Ticks(flat, math.Nextafter(flat, 6))); n > 7 {
		t.Errorf("%d ticks", n)
	}
}

func TestTicksAreRoundNumbers(t *testing.T) {
	for _, tt := range []struct {
		low, high float64
		want      []string
	}{
		{0, 1, []string{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}},
		{0, 65536, []string{"0", "20k", "40k", "60k"}},
		{2.9, 3.4, []string{"2.9", "3.0", "3.1", "3.2", "3.3", "3.4"}},
	} {
		var got []string
		for _, tick := range (niceTicks{}).Ticks(tt.low, tt.high) {
			got = append(got, tick.Label)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v to %v: %s", tt.low, tt.high, diff)
		}
	}
}
