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
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"text/template"

	"github.com/longalign/longalign-go/datasets"
)

//go:embed prompts
var builtIn embed.FS

// Prompts are the templates by name: propose/TASK/LANG and answer/LANG.
type Prompts struct{ templates map[string]*template.Template }

// promptFields are what a template can use.
type promptFields struct {
	Document  string
	Title     string
	Question  string
	Questions int
}

// NewPrompts returns the built-in templates, with those named in replaced exchanged.
func NewPrompts(replaced map[string]string) (*Prompts, error) {
	p := &Prompts{templates: map[string]*template.Template{}}
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
	t, err := template.New(name).Option("missingkey=error").Parse(strings.TrimRight(text, "\n"))
	if err != nil {
		return err
	}
	// A first rendering finds unknown fields before any request is paid for.
	if err := t.Execute(&strings.Builder{}, promptFields{}); err != nil {
		return err
	}
	p.templates[name] = t
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
