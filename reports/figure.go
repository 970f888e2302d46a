package reports

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"image/color"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"codeberg.org/go-pdf/fpdf"
	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgpdf"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Figure is a drawing in every format, with what a page prints around it.
type Figure struct {
	// Name is the short name that commands and file names use.
	Name    string
	Title   string
	Caption string
	// Alt says in words what the drawing shows, with its numbers.
	Alt string
	// Marks are footnote IDs, Sources artifact references, as in a [Cell].
	Marks   []string
	Sources []string
	// Footnotes define marks that are not standard ones.
	Footnotes []Footnote

	drawing drawing
}

// FigureFormat is a way to write a figure to a file.
type FigureFormat string

// The formats of [Figure.Encode].
const (
	SVG FigureFormat = "svg"
	PDF FigureFormat = "pdf"
	PNG FigureFormat = "png"
)

// FigureFormats lists all formats of figures.
func FigureFormats() []FigureFormat { return []FigureFormat{SVG, PDF, PNG} }

// ErrNoData says that there is nothing to draw.
var ErrNoData = errors.New("nothing was measured")

// Colours of all drawings. Ink, grid and paper are replaced by the page's own colours
// where an SVG is shown in HTML, so nothing else may use them.
const (
	inkColour   = "#1F2429"
	gridColour  = "#D5DAE0"
	paperColour = "#FFFFFE"
	// cellInk is for text on coloured cells, which keep their colours in any theme.
	cellInk     = "#101418"
	emptyColour = "#9AA3AD"
)

// seriesColours tell methods apart, also for most colour-blind readers and on dark paper.
var seriesColours = []string{"#8A94A0", "#3E8FD0", "#E9A23B", "#2BA58A", "#C86FB0", "#D9603B"}

// rangeColours order ranges of length from short to long.
var rangeColours = []string{"#F2B94B", "#EA8A5E", "#D673AE", "#9686DC", "#5AA3D8", "#4CB8A0"}

// Sizes in points.
const (
	figureWidth  = 500
	figureHeight = 280
	textSize     = 11
	smallText    = 10
)

func hexColour(s string) color.NRGBA {
	v, _ := strconv.ParseUint(strings.TrimPrefix(s, "#"), 16, 32) // all callers pass constants
	return color.NRGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
}

// textStyle is the drawings' type at size points.
func textStyle(size vg.Length, colour string) text.Style {
	return text.Style{
		Color:   hexColour(colour),
		Font:    font.From(font.Font{Typeface: "Liberation", Variant: "Sans", Weight: stdfont.WeightNormal}, size),
		Handler: plot.DefaultTextHandler,
	}
}

// newPlot returns an empty plot in the drawings' style.
func newPlot(xLabel, yLabel string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle = textStyle(textSize, inkColour)
		a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign = draw.XCenter, draw.YBottom
		a.Tick.Label = textStyle(smallText, inkColour)
		a.LineStyle.Color = hexColour(inkColour)
		a.LineStyle.Width = 0.6
		a.Tick.LineStyle.Color = hexColour(inkColour)
		a.Tick.LineStyle.Width = 0.6
		a.Tick.Length = 4
		a.Padding = 4
	}
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XCenter, draw.YTop
	p.Y.Tick.Label.XAlign, p.Y.Tick.Label.YAlign = draw.XRight, draw.YCenter
	p.X.Label.Text, p.Y.Label.Text = xLabel, yLabel
	return p
}

// key is one entry of a drawing's legend.
type key struct{ name, colour string }

// drawing is what [Figure.Encode] puts on a canvas.
type drawing struct {
	width, height vg.Length
	keys          []key
	paint         func(draw.Canvas)
}

// Encode returns the figure as a file. PNG has 200 dots an inch; PDF and PNG carry their
// fonts, SVG names Liberation Sans, whose widths are Arial's.
func (f *Figure) Encode(format FigureFormat) ([]byte, error) {
	var canvas vg.CanvasWriterTo
	switch d := f.drawing; format {
	case SVG:
		canvas = vgsvg.NewWith(vgsvg.UseWH(d.width, d.height))
	case PDF:
		pdfDates.Do(func() {
			fpdf.SetDefaultCreationDate(time.Unix(0, 0).UTC())
			fpdf.SetDefaultModificationDate(time.Unix(0, 0).UTC())
			fpdf.SetDefaultCatalogSort(true)
		})
		canvas = vgpdf.New(d.width, d.height)
	case PNG:
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(d.width, d.height), vgimg.UseDPI(200))}
	default:
		return nil, fmt.Errorf("figure %s: format %q is not known; use svg, pdf or png", f.Name, format)
	}
	f.drawing.paintOn(canvas)
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return nil, fmt.Errorf("figure %s: %w", f.Name, err)
	}
	if format == SVG {
		return fitTexts(buf.Bytes()), nil
	}
	return buf.Bytes(), nil
}

// svgText is a text of the SVG writer: what stands before its style, its style, its size, and what it says.
var svgText = regexp.MustCompile(`(<text [^>]*?)(style="[^"]*font-size:([0-9.]+)px[^"]*">)([^<]+)</text>`)

// fitTexts gives each text of an SVG the width that the drawing was laid out for, since who shows it may lack the font.
func fitTexts(svg []byte) []byte {
	return svgText.ReplaceAllFunc(svg, func(b []byte) []byte {
		m := svgText.FindSubmatch(b)
		size, err := strconv.ParseFloat(string(m[3]), 64)
		if err != nil {
			return b
		}
		width := textStyle(vg.Length(size), inkColour).Width(html.UnescapeString(string(m[4])))
		return fmt.Appendf(nil, `%stextLength="%.4g" lengthAdjust="spacingAndGlyphs" %s%s</text>`, m[1], width.Points(), m[2], m[4])
	})
}

// pdfDates makes the PDF writer put a fixed date and a fixed order into its files, so
// that the same numbers give the same bytes.
var pdfDates sync.Once

func (d drawing) paintOn(canvas vg.CanvasSizer) {
	c := draw.New(canvas)
	c.SetColor(hexColour(paperColour))
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, 8, -14, 6, -6)
	if len(d.keys) > 1 {
		c.Max.Y -= d.paintKeys(c)
	}
	d.paint(c)
}

// paintKeys draws the legend in rows from the top and returns its height.
func (d drawing) paintKeys(c draw.Canvas) vg.Length {
	style := textStyle(smallText, inkColour)
	style.YAlign = draw.YCenter
	const chip, gap, line = 9, 5, 16
	x, y := c.Min.X, c.Max.Y-line/2
	for i, k := range d.keys {
		w := chip + gap + style.Width(latin(k.name))
		if i > 0 && x+w > c.Max.X {
			x, y = c.Min.X, y-line
		}
		c.SetColor(hexColour(k.colour))
		c.Fill(vg.Rectangle{Min: vg.Point{X: x, Y: y - chip/2}, Max: vg.Point{X: x + chip, Y: y + chip/2}}.Path())
		c.FillText(style, vg.Point{X: x + chip + gap, Y: y}, latin(k.name))
		x += w + 16
	}
	return c.Max.Y - y + line/2 + 4
}

// latin spells what the PDF writer's single-byte encoding lacks.
func latin(s string) string {
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, spelled.Replace(s))
}

var spelled = strings.NewReplacer("–", "-", "—", "-", "\u2212", "-", "≥ ", ">=", "≥", ">=", "≤", "<=", "×", "x", "→", "->", "\u00a0", " ",
	"…", "...", "τ", "tau", "Δ", "change in ", "’", "'", " · ", ", ", "·", ",")

// inlineSVG makes the SVG part of an HTML page: without prologue and fixed size, named
// for screen readers, in the page's colours.
func (f *Figure) inlineSVG() (string, error) {
	b, err := f.Encode(SVG)
	if err != nil {
		return "", err
	}
	s := string(b)
	open := strings.Index(s, "<svg")
	if open < 0 {
		return "", fmt.Errorf("figure %s: the drawing has no svg element", f.Name)
	}
	s = s[open:]
	end := strings.Index(s, ">")
	head := s[:end]
	box := ""
	if i := strings.Index(head, `viewBox="`); i >= 0 {
		box, _, _ = strings.Cut(head[i+len(`viewBox="`):], `"`)
	}
	s = fmt.Sprintf(`<svg viewBox="%s" role="img" aria-label="%s"%s`, html.EscapeString(box), html.EscapeString(f.Alt), s[end:])
	return themed.Replace(s), nil
}

// themed gives the page's style sheet the colours of ink, grid and paper, and its fonts.
var themed = strings.NewReplacer(inkColour, "var(--ink)", gridColour, "var(--line)", paperColour, "var(--card)",
	"font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal;", "")

// course says in words where a curve went, as far as its printed digits tell.
func course(first, last float64) string {
	from, to := fmt.Sprintf("%.2f", first), fmt.Sprintf("%.2f", last)
	switch {
	case from == to:
		return "ends where it began, at " + to
	case last < first:
		return "falls from " + from + " to " + to
	}
	return "rises from " + from + " to " + to
}
