package reports

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// RenderReport makes one HTML page of a study: what was expected and what came out, tables,
// figures, and the provenance that every number leads to. The page needs no other file
// and no network; the same study gives the same bytes.
func RenderReport(s *Study) ([]byte, error) {
	tables := Tables(s)
	figures, problems := Figures(s)
	return renderPage(s, tables, figures, problems)
}

func renderPage(s *Study, tables []*Table, figures []*Figure, problems []string) ([]byte, error) {
	v := pageView{Study: s, Title: s.Title, Problems: append(slices.Clone(s.Problems), problems...)}
	if v.Title == "" {
		v.Title = s.Name
	}
	p := newProvenance(s.Stages)
	for _, t := range tables {
		if err := t.Validate(); err != nil { // one bad table must not cost the report
			v.Problems = append(v.Problems, err.Error())
			continue
		}
		if t.Name == "expected" {
			v.Observations = Observe(s)
			v.Expected = t
			continue
		}
		v.Tables = append(v.Tables, t.view(p.anchor))
	}
	for _, f := range figures {
		view, err := f.view(p)
		if err != nil {
			v.Problems = append(v.Problems, err.Error())
			continue
		}
		t := Table{Marks: f.Marks, Footnotes: f.Footnotes}
		for _, n := range newNoteSet(&t).notes() {
			anchor := "figure-note-" + notInAnchor.ReplaceAllString(n.ID, "-")
			view.Notes = append(view.Notes, noteLink{n.ID, anchor})
			if !slices.ContainsFunc(v.FigureNotes, func(o figureNote) bool { return o.Anchor == anchor }) {
				v.FigureNotes = append(v.FigureNotes, figureNote{anchor, n.Text})
			}
		}
		v.Figures = append(v.Figures, view)
	}
	for cell, reason := range s.Missing {
		v.Missing = append(v.Missing, missingView{cell, reason})
	}
	slices.SortFunc(v.Missing, func(a, b missingView) int { return strings.Compare(a.Cell, b.Cell) })
	v.Facts = s.facts()
	v.Spec = indentJSON(s.Spec)
	v.Sources = p.lists
	v.Stages = p.views()
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, "report", v); err != nil {
		return nil, fmt.Errorf("report %s: %w", s.ID, err)
	}
	return buf.Bytes(), nil
}

// pageView is what the report's template prints.
type pageView struct {
	Study        *Study
	Title        string
	Facts        []fact
	Problems     []string
	Missing      []missingView
	Expected     *Table
	Observations []Observation
	Tables       []tableView
	Figures      []figureView
	FigureNotes  []figureNote
	Sources      []sourceList
	Stages       []stageView
	Spec         string
}

// figureNote is the text of a remark that figures share.
type figureNote struct{ Anchor, Text string }

type missingView struct{ Cell, Reason string }

type fact struct{ Name, Value string }

// figureView is what the template prints of a Figure.
type figureView struct {
	Name, Title, Caption string
	Drawing              template.HTML
	// Notes lead to the texts below the figures.
	Notes  []noteLink
	Source string
	Wide   bool
}

func (f *Figure) view(p *provenance) (figureView, error) {
	svg, err := f.inlineSVG()
	v := figureView{Name: f.Name, Title: f.Title, Caption: f.Caption, Wide: f.drawing.width > figureWidth,
		Drawing: template.HTML(svg)} // our own drawing; all text in it is escaped
	if len(f.Sources) > 0 {
		v.Source = p.anchor(f.Sources)
	}
	return v, err
}

// facts are the lines below the report's title.
func (s *Study) facts() []fact {
	var out []fact
	add := func(name, value string) {
		if value != "" {
			out = append(out, fact{name, value})
		}
	}
	add("Run", s.ID)
	add("Status", string(s.Status))
	add("Started", date(s.Started))
	add("Finished", date(s.Finished))
	if !s.Started.IsZero() && s.Finished.After(s.Started) {
		took := s.Finished.Sub(s.Started).Round(time.Second).String()
		reused := 0
		for _, u := range s.Stages {
			if u.Reused {
				reused++
			}
		}
		if reused > 0 {
			took += fmt.Sprintf(", with %d of %d results reused", reused, len(s.Stages))
		}
		add("Took", took)
	}
	add("Code", codeText(s.Code))
	var machines []string
	for _, u := range s.Stages {
		if u.Manifest != nil {
			machines = union(machines, []string{platformText(u.Manifest.Platform)})
		}
	}
	add("Machines", strings.Join(machines, "; "))
	return out
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func codeText(c artifact.Code) string {
	s := c.Revision
	if s == "" {
		s = c.Version
	}
	if c.Dirty {
		s += " with uncommitted changes"
	}
	return strings.TrimSpace(s)
}

func platformText(p artifact.Platform) string {
	parts := []string{}
	for _, s := range []string{p.GPU, p.CPU, strings.Trim(p.OS+"/"+p.Arch, "/")} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ", ")
}

func indentJSON(raw json.RawMessage) string {
	var buf bytes.Buffer
	if len(raw) == 0 || json.Indent(&buf, raw, "", "  ") != nil {
		return string(raw)
	}
	return buf.String()
}

// provenance turns sources into anchors of the page's last section.
type provenance struct {
	stages []StageUse
	byRef  map[string]string // Ref.String() → anchor
	byBlob map[string]string // digest → anchor of the stage that made it
	lists  []sourceList
	known  map[string]string // joined sources → anchor of their list
}

// sourceList is one combination of sources that numbers of the report come from.
type sourceList struct {
	Anchor  string
	Number  int
	Sources []link
}

// link is text and the anchor it leads to, "" for none.
type link struct{ Text, Anchor string }

func newProvenance(stages []StageUse) *provenance {
	p := &provenance{byRef: map[string]string{}, byBlob: map[string]string{}, known: map[string]string{}}
	for _, u := range stages {
		if u.Manifest == nil {
			continue
		}
		ref := u.Manifest.Ref().String()
		if _, again := p.byRef[ref]; again {
			i := slices.IndexFunc(p.stages, func(o StageUse) bool { return o.Manifest.Ref() == u.Manifest.Ref() })
			p.stages[i].Cells = union(p.stages[i].Cells, u.Cells)
			continue
		}
		p.stages = append(p.stages, u)
		p.byRef[ref] = anchorOf(ref)
		for _, o := range u.Manifest.Outputs {
			if _, first := p.byBlob[o.Blob.Digest]; !first {
				p.byBlob[o.Blob.Digest] = anchorOf(ref)
			}
		}
	}
	return p
}

var notInAnchor = regexp.MustCompile(`[^A-Za-z0-9]+`)

func anchorOf(ref string) string { return "stage-" + notInAnchor.ReplaceAllString(ref, "-") }

// link resolves one source.
func (p *provenance) link(source string) link {
	if a, ok := p.byRef[source]; ok {
		return link{source, a}
	}
	return link{source, p.byBlob[source]}
}

// anchor leads to the one stage of sources, or to their list.
func (p *provenance) anchor(sources []string) string {
	if len(sources) == 0 {
		return ""
	}
	if len(sources) == 1 {
		if l := p.link(sources[0]); l.Anchor != "" {
			return l.Anchor
		}
	}
	id := strings.Join(sources, " ")
	if a, ok := p.known[id]; ok {
		return a
	}
	list := sourceList{Number: len(p.lists) + 1}
	list.Anchor = "sources-" + strconv.Itoa(list.Number)
	for _, s := range sources {
		list.Sources = append(list.Sources, p.link(s))
	}
	p.lists = append(p.lists, list)
	p.known[id] = list.Anchor
	return list.Anchor
}

// stageView is one entry of the provenance section.
type stageView struct {
	Anchor, Name, Short, Key, Path string
	Reused                         bool
	Role, Cells                    string
	AllCells                       []string // where Cells only counts them
	Inputs                         []inputView
	UsedBy                         []link
	Outputs                        []outputView
	Facts                          []fact
	Notes                          []string
	Params                         string
}

type inputView struct {
	Role string
	Link link
}

type outputView struct {
	Name, Digest, Size, MediaType string
	Volatile                      bool
}

// views lists the stages in the order in which the study used them.
func (p *provenance) views() []stageView {
	usedBy := map[artifact.Ref][]link{}
	for _, u := range p.stages {
		l := p.link(u.Manifest.Ref().String())
		for _, role := range slices.Sorted(maps.Keys(u.Manifest.Inputs)) {
			in := u.Manifest.Inputs[role]
			if !slices.Contains(usedBy[in], l) {
				usedBy[in] = append(usedBy[in], l)
			}
		}
	}
	var out []stageView
	for _, u := range p.stages {
		m := u.Manifest
		v := stageView{Anchor: anchorOf(m.Ref().String()), Name: m.Stage, Short: m.Ref().String(), Key: m.Key, Reused: u.Reused,
			Path: fmt.Sprintf("actions/%s/%s/%d.json", m.Stage, m.Key, m.Generation), Role: u.Role,
			Cells: strings.Join(u.Cells, "; "), UsedBy: usedBy[m.Ref()], Params: indentJSON(m.Params), Notes: append(slices.Clone(m.Notes), m.Warnings...)}
		if len(u.Cells) > 2 {
			v.Cells, v.AllCells = fmt.Sprintf("%d cells", len(u.Cells)), u.Cells
		}
		for _, role := range slices.Sorted(maps.Keys(m.Inputs)) {
			v.Inputs = append(v.Inputs, inputView{role, p.link(m.Inputs[role].String())})
		}
		for _, o := range m.Outputs {
			v.Outputs = append(v.Outputs, outputView{o.Name, o.Blob.Digest, bytesText(o.Blob.Size), o.MediaType, o.Volatile})
		}
		add := func(name, value string) {
			if value != "" {
				v.Facts = append(v.Facts, fact{name, value})
			}
		}
		add("Machine", platformText(m.Platform))
		add("Driver", m.Platform.Driver)
		add("Go", m.Platform.Go)
		add("Code", codeText(m.Code))
		add("Workflow", strings.TrimSpace(m.Workflow.ID+" "+m.Workflow.RunID))
		add("Started", date(m.Started))
		add("Finished", date(m.Finished))
		for _, name := range slices.Sorted(maps.Keys(m.Counts)) {
			add(name, Column{}.formatNumber(float64(m.Counts[name])))
		}
		out = append(out, v)
	}
	return out
}

// bytesText prints a size with binary units, as file managers do.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v := float64(n)
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
