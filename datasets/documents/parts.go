package documents

import (
	"crypto/sha256"
	"encoding/binary"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"

	"github.com/longalign/longalign-go/datasets"
)

// unit is a stretch of text that parts do not cut through: a paragraph, a declaration.
type unit struct {
	name string
	text string
}

// emitParts gathers units into documents of at most PartBytes bytes, each starting with head.
func (r *reader) emitParts(units []unit, head string, d datasets.Document, kind datasets.DocumentFormat) error {
	limit := r.PartBytes
	if limit == 0 {
		if len(units) == 0 {
			return nil
		}
		texts := make([]string, len(units))
		for i, u := range units {
			texts[i] = u.text
		}
		d.Text = head + strings.Join(texts, "\n\n")
		if d.Title == "" {
			d.Title = units[0].name
		}
		return r.emit(d, kind)
	}
	limit -= len(head)
	var texts []string
	size, target, title := 0, partTarget(r.file, 0, limit), ""
	parts := 0
	flush := func() error {
		if len(texts) == 0 {
			return nil
		}
		part := d
		part.ID = r.file + "#" + strconv.Itoa(parts)
		if title != "" {
			part.Title = title
		}
		part.Text = head + strings.Join(texts, "\n\n")
		parts++
		texts, size, title = nil, 0, ""
		target = partTarget(r.file, parts, limit)
		return r.emit(part, kind)
	}
	for _, u := range units {
		for _, text := range cutText(u.text, limit) {
			// A part takes units up to its target, and one longer unit alone.
			if size > 0 && size+2+len(text) > target {
				if err := flush(); err != nil {
					return err
				}
			}
			if title == "" {
				title = u.name
			}
			texts = append(texts, text)
			size += len(text) + 2
		}
	}
	return flush()
}

// partTarget draws a part's size between a sixteenth of limit and limit: u³ of a uniform u.
func partTarget(file string, part, limit int) int {
	sum := sha256.Sum256([]byte(file + "\x00" + strconv.Itoa(part)))
	u := float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
	least := float64(limit) / 16
	return int(least + (float64(limit)-least)*u*u*u)
}

// cutText cuts text longer than limit at line ends, else at spaces, else between characters.
func cutText(text string, limit int) []string {
	var parts []string
	for limit = max(limit, utf8.UTFMax); len(text) > limit; {
		at := strings.LastIndexByte(text[:limit], '\n')
		if at <= 0 {
			at = strings.LastIndexByte(text[:limit], ' ')
		}
		if at <= 0 {
			for at = limit; !utf8.RuneStart(text[at]); at-- {
			}
		}
		parts = append(parts, strings.TrimRight(text[:at], " \n"))
		text = strings.TrimLeft(text[at:], "\n ")
	}
	if strings.TrimSpace(text) != "" {
		parts = append(parts, text)
	}
	return parts
}

// paragraphs cuts text at blank lines.
func paragraphs(text string) []unit {
	var units []unit
	for _, p := range strings.Split(text, "\n\n") {
		if p = strings.Trim(p, "\n"); strings.TrimSpace(p) != "" {
			units = append(units, unit{text: p})
		}
	}
	return units
}

func (r *reader) readText(name string) error {
	text, err := r.whole(name)
	if err != nil {
		return err
	}
	d := datasets.Document{Title: path.Base(name)}
	if r.PartBytes == 0 {
		d.Text = text
		return r.emit(d, datasets.FormatText)
	}
	return r.emitParts(paragraphs(text), "", d, datasets.FormatText)
}

func (r *reader) readMarkdown(name string) error {
	text, err := r.whole(name)
	if err != nil {
		return err
	}
	d := datasets.Document{Title: path.Base(name)}
	for line := range strings.Lines(text) {
		if heading := strings.TrimLeft(line, "#"); len(heading) < len(line) && strings.HasPrefix(heading, " ") {
			d.Title = strings.TrimSpace(heading)
			break
		}
	}
	if r.PartBytes == 0 {
		d.Text = text
		return r.emit(d, datasets.FormatMarkdown)
	}
	return r.emitParts(paragraphs(text), "", d, datasets.FormatMarkdown)
}

// readHTML reads HTML in the encoding it declares.
func (r *reader) readHTML(name string) error {
	data, err := r.wholeBytes(name)
	if err != nil {
		return err
	}
	encoding, _, certain := charset.DetermineEncoding(data, "text/html")
	if certain || !utf8.Valid(data) {
		if decoded, err := encoding.NewDecoder().Bytes(data); err == nil {
			data = decoded
		}
	}
	if err := checkText(data); err != nil {
		return &InputError{File: name, Reason: err.Error()}
	}
	title, text, err := HTMLText(string(data))
	if err != nil {
		return &InputError{File: name, Reason: "is no HTML", Err: err}
	}
	if title == "" {
		title = path.Base(name)
	}
	d := datasets.Document{Title: title}
	if r.PartBytes == 0 {
		d.Text = text
		return r.emit(d, datasets.FormatHTML)
	}
	return r.emitParts(paragraphs(text), "", d, datasets.FormatHTML)
}

// HTMLText returns the title and the visible text of a page, blocks parted by blank lines. Preformatted
// text keeps its lines.
func HTMLText(page string) (title, text string, err error) {
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return "", "", err
	}
	var blocks []string
	var block strings.Builder
	end := func() {
		if s := strings.Join(strings.Fields(block.String()), " "); s != "" {
			blocks = append(blocks, s)
		}
		block.Reset()
	}
	// An own stack: a hostile page may nest deeper than goroutine stacks should grow.
	type step struct {
		node  *html.Node
		leave bool
	}
	stack := []step{{node: root}}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		n := s.node
		if s.leave {
			end()
			continue
		}
		if n.Type == html.TextNode {
			block.WriteString(n.Data)
			continue
		}
		if n.Type == html.ElementNode {
			switch n.DataAtom {
			case atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Head, atom.Nav, atom.Svg:
				if n.DataAtom == atom.Head {
					title = headTitle(n)
				}
				continue
			case atom.Br:
				block.WriteByte(' ')
			case atom.Pre:
				end()
				if s := strings.Trim(rawText(n), "\n"); strings.TrimSpace(s) != "" {
					blocks = append(blocks, s)
				}
				continue
			}
			if isBlock(n.DataAtom) {
				end()
				stack = append(stack, step{n, true})
			}
		}
		for c := n.LastChild; c != nil; c = c.PrevSibling {
			stack = append(stack, step{node: c})
		}
	}
	end()
	return title, strings.Join(blocks, "\n\n"), nil
}

func isBlock(a atom.Atom) bool {
	switch a {
	case atom.P, atom.Div, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Li, atom.Ul, atom.Ol, atom.Dl,
		atom.Dt, atom.Dd, atom.Table, atom.Tr, atom.Section, atom.Article, atom.Blockquote, atom.Header, atom.Footer,
		atom.Main, atom.Aside, atom.Figure, atom.Figcaption, atom.Body, atom.Hr, atom.Form, atom.Address, atom.Details, atom.Summary:
		return true
	}
	return false
}

func headTitle(head *html.Node) string {
	for n := range head.Descendants() {
		if n.DataAtom == atom.Title {
			return strings.Join(strings.Fields(rawText(n)), " ")
		}
	}
	return ""
}

func rawText(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}
