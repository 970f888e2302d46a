package reports

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// Person is an author or contributor.
type Person struct {
	Family string `yaml:"family-names" json:"familyName"`
	Given  string `yaml:"given-names,omitempty" json:"givenName,omitempty"`
	ORCID  string `yaml:"orcid,omitempty" json:"-"`
}

// Citation is what a CITATION.cff says about this software.
type Citation struct {
	Title    string
	Abstract string
	// Dataset says that results are cited, not the software.
	Dataset bool
	// Version and Commit name the release, Released is its date.
	Version, Commit string
	Released        time.Time
	Repository      string
	License         string // an SPDX identifier
	Authors         []Person
	Keywords        []string
}

// cff is the file format, version 1.2.0.
type cff struct {
	CFFVersion string     `yaml:"cff-version"`
	Message    string     `yaml:"message"`
	Title      string     `yaml:"title"`
	Abstract   string     `yaml:"abstract,omitempty"`
	Type       string     `yaml:"type"`
	Authors    []any      `yaml:"authors"`
	Version    string     `yaml:"version,omitempty"`
	Commit     string     `yaml:"commit,omitempty"`
	Released   string     `yaml:"date-released,omitempty"`
	Repository string     `yaml:"repository-code,omitempty"`
	License    string     `yaml:"license,omitempty"`
	Keywords   []string   `yaml:"keywords,omitempty"`
	References []cffPaper `yaml:"references"`
}

type cffPaper struct {
	Type    string   `yaml:"type"`
	Title   string   `yaml:"title"`
	Authors []Person `yaml:"authors"`
	Year    int      `yaml:"year"`
	URL     string   `yaml:"url"`
	DOI     string   `yaml:"doi"`
	Notes   string   `yaml:"notes"`
}

// recipe is the paper whose recipe this software follows.
func recipe() cffPaper {
	return cffPaper{
		Type:  "article",
		Title: "LongAlign: A Recipe for Long Context Alignment of Large Language Models",
		Authors: []Person{{Family: "Bai", Given: "Yushi"}, {Family: "Lv", Given: "Xin"}, {Family: "Zhang", Given: "Jiajie"},
			{Family: "He", Given: "Yuze"}, {Family: "Qi", Given: "Ji"}, {Family: "Hou", Given: "Lei"},
			{Family: "Tang", Given: "Jie"}, {Family: "Dong", Given: "Yuxiao"}, {Family: "Li", Given: "Juanzi"}},
		Year: 2024, URL: "https://arxiv.org/abs/2401.18058", DOI: "10.48550/arXiv.2401.18058",
		Notes: "The recipe that this software implements.",
	}
}

// CFF returns the content of a CITATION.cff (format 1.2.0), which cites the paper too.
func (c Citation) CFF() ([]byte, error) {
	if c.Title == "" || len(c.Authors) == 0 {
		return nil, errors.New("citation: a title and an author are needed")
	}
	f := cff{
		CFFVersion: "1.2.0", Message: "If you use this software, please cite it and the paper whose recipe it follows.",
		Title: c.Title, Abstract: c.Abstract, Type: "software", Version: c.Version, Commit: c.Commit,
		Repository: c.Repository, License: c.License, Keywords: c.Keywords, References: []cffPaper{recipe()},
	}
	if c.Dataset {
		f.Type, f.Message = "dataset", "If you use these results, please cite them and the paper whose recipe they follow."
	}
	if c.Version == "(devel)" { // what Go calls a program built from a working tree
		f.Version = ""
	}
	for _, a := range c.Authors {
		if a.Family == "" {
			return nil, errors.New("citation: an author has no name")
		}
		if a.Given == "" { // a group: the format calls it an entity
			f.Authors = append(f.Authors, map[string]string{"name": a.Family})
			continue
		}
		f.Authors = append(f.Authors, a)
	}
	if !c.Released.IsZero() {
		f.Released = c.Released.UTC().Format("2006-01-02")
	}
	var buf bytes.Buffer
	e := yaml.NewEncoder(&buf)
	e.SetIndent(2)
	if err := e.Encode(f); err != nil {
		return nil, fmt.Errorf("citation: %w", err)
	}
	return buf.Bytes(), e.Close()
}
