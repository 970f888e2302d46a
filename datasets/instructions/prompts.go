// Package instructions makes conversations about documents by Self-Instruct: a teacher proposes five
// questions of a drawn task type about a document, one is drawn, the teacher answers it. The
// instance is the document and the question as the user's message, and the answer.
//
// Order: draw the task → propose → parse → draw the question → answer.
//
// Prompts are the templates under prompts/, in our own words; a user may replace each by name. The offline teacher is
// here; chat clients, journals and budgets are the activities' concern and enter as a datasets.Teacher.
package instructions

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/longalign/longalign-go/datasets"
)

//go:embed prompts
var builtIn embed.FS

// Prompts are the templates by name: propose/TASK/LANG and answer/LANG.
type Prompts struct {
	templates map[string]*template.Template
	texts     map[string]string
}

// Digest is the sha256, in hexadecimal, of all templates and their names: whoever changes a word of one asks for other instances.
func (p *Prompts) Digest() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(p.texts)) {
		fmt.Fprintf(h, "%d %s%d %s", len(name), name, len(p.texts[name]), p.texts[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// WritePrompts writes the built-in templates to a directory, as ReadPrompts reads them: DIR/propose/TASK/LANG.txt and DIR/answer/LANG.txt. It
// changes no file that is there.
func WritePrompts(dir string) error {
	p, err := NewPrompts(nil)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.texts)) {
		path := filepath.Join(dir, filepath.FromSlash(name)+".txt")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("prompts: %w", err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("prompts: %w; name a directory without templates", err)
		}
		_, err = f.WriteString(p.texts[name] + "\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("prompts: %w", err)
		}
	}
	return nil
}

// ReadPrompts returns the templates under dir by name, for InstructionsParams.Prompts: those that are to replace built-in ones, or all. Each file
// must be one of the built-in ones' names with .txt, and hold a template that works.
func ReadPrompts(dir string) (map[string]string, error) {
	read := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name, ok := strings.CutSuffix(filepath.ToSlash(rel), ".txt")
		if !ok {
			return fmt.Errorf("%s is no template: templates end in .txt", path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(text) > maxTemplate {
			return fmt.Errorf("%s has %d bytes, a template may have %d", path, len(text), maxTemplate)
		}
		read[name] = string(text)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("prompts: %w", err)
	}
	if len(read) == 0 {
		return nil, fmt.Errorf("prompts: %s holds no template such as propose/summary/en.txt; starter prompts DIR writes the built-in ones", dir)
	}
	if _, err := NewPrompts(read); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return read, nil
}

// maxTemplate bounds a template's bytes: it travels with the experiment.
const maxTemplate = 64 << 10

// promptFields are what a template can use.
type promptFields struct {
	Document  string
	Title     string
	Question  string
	Questions int
}

// NewPrompts returns the built-in templates, with those named in replaced exchanged.
func NewPrompts(replaced map[string]string) (*Prompts, error) {
	p := &Prompts{templates: map[string]*template.Template{}, texts: map[string]string{}}
	err := fs.WalkDir(builtIn, "prompts", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(builtIn, name)
		if err != nil {
			return err
		}
		return p.set(strings.TrimSuffix(strings.TrimPrefix(name, "prompts/"), ".txt"), string(text))
	})
	if err != nil {
		return nil, fmt.Errorf("prompts: %w", err)
	}
	for name, text := range replaced {
		if p.templates[name] == nil {
			return nil, fmt.Errorf("prompts: there is no %q; the names are propose/TASK/LANG and answer/LANG, such as propose/summary/en", name)
		}
		if err := p.set(name, text); err != nil {
			return nil, fmt.Errorf("prompts: %w", err)
		}
	}
	return p, nil
}

func (p *Prompts) set(name, text string) error {
	text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return err
	}
	// A first rendering finds unknown fields before any request is paid for.
	if err := t.Execute(&strings.Builder{}, promptFields{}); err != nil {
		return err
	}
	p.templates[name], p.texts[name] = t, text
	return nil
}

func (p *Prompts) render(name string, fields promptFields) ([]datasets.Message, error) {
	t := p.templates[name]
	if t == nil {
		return nil, fmt.Errorf("prompts: there is no %q", name)
	}
	var b strings.Builder
	if err := t.Execute(&b, fields); err != nil {
		return nil, fmt.Errorf("prompts: %w", err)
	}
	return []datasets.Message{{Role: datasets.RoleUser, Content: b.String()}}, nil
}

// Propose renders the request for questions about d.
func (p *Prompts) Propose(d datasets.Document, task datasets.TaskType, questions int) ([]datasets.Message, error) {
	return p.render("propose/"+string(task)+"/"+d.Lang, promptFields{Document: d.Text, Title: d.Title, Questions: questions})
}

// Answer renders the user's message of an instance: d and the question.
func (p *Prompts) Answer(d datasets.Document, question string) ([]datasets.Message, error) {
	return p.render("answer/"+d.Lang, promptFields{Document: d.Text, Title: d.Title, Question: question})
}
