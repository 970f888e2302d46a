package reports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// CrateFile is the name of an RO-Crate's description, at the root of its directory.
const CrateFile = "ro-crate-metadata.json"

// Crate describes a directory with the artifacts of one run, for [RO-Crate 1.1].
//
// [RO-Crate 1.1]: https://www.researchobject.org/ro-crate/specification/1.1/
type Crate struct {
	ID          string
	Name        string
	Description string
	// License is a URL; without one the crate says that none was chosen.
	License string
	// Published is the run's date.
	Published time.Time
	Authors   []Person
	Files     []CrateEntry
	Actions   []CrateAction
}

// CrateEntry is one file of the crate.
type CrateEntry struct {
	// Path is relative to the crate's directory, with slashes.
	Path      string
	Name      string
	MediaType string
	Digest    string // "sha256:<hex>"
	Size      int64
}

// CrateAction is one stage: it made Results from Objects, both paths of files of the crate.
type CrateAction struct {
	ID, Name, Description string
	Objects, Results      []string
	Software              string // the program's name and version
	Started, Finished     time.Time
}

// NewCrate describes the export of a study: every blob and manifest of its stages, and the
// stages as actions. Blobs lie at blobPath(digest), manifests under their keys in the store; files
// are the report's, by path.
func NewCrate(s *Study, blobPath func(digest string) string, files map[string][]byte) Crate {
	c := Crate{ID: s.ID, Name: s.Title, Description: s.Description, Published: s.Finished}
	if c.Name == "" {
		c.Name = s.Name
	}
	if c.Published.IsZero() {
		c.Published = s.Started
	}
	seen := map[string]bool{}
	add := func(e CrateEntry) {
		if !seen[e.Path] {
			seen[e.Path] = true
			c.Files = append(c.Files, e)
		}
	}
	outputs := map[artifact.Ref][]string{}
	for _, u := range s.Stages {
		if m := u.Manifest; m != nil && outputs[m.Ref()] == nil {
			paths := []string{}
			for _, o := range m.Outputs {
				paths = append(paths, blobPath(o.Blob.Digest))
				add(CrateEntry{Path: blobPath(o.Blob.Digest), Name: m.Stage + ": " + o.Name, MediaType: o.MediaType, Digest: o.Blob.Digest, Size: o.Blob.Size})
			}
			outputs[m.Ref()] = paths
		}
	}
	done := map[artifact.Ref]bool{}
	for _, u := range s.Stages {
		m := u.Manifest
		if m == nil || done[m.Ref()] {
			continue
		}
		done[m.Ref()] = true
		manifest := fmt.Sprintf("actions/%s/%s/%d.json", m.Stage, m.Key, m.Generation)
		add(CrateEntry{Path: manifest, Name: "manifest of " + m.Ref().String(), MediaType: "application/json"})
		a := CrateAction{ID: "#" + anchorOf(m.Ref().String()), Name: m.Stage, Description: "parameters: " + string(m.Params),
			Results: append(slices.Clone(outputs[m.Ref()]), manifest), Started: m.Started, Finished: m.Finished,
			Software: strings.TrimSpace("LongAlign-Go " + codeText(m.Code))}
		for _, role := range slices.Sorted(maps.Keys(m.Inputs)) {
			a.Objects = union(a.Objects, outputs[m.Inputs[role]])
		}
		c.Actions = append(c.Actions, a)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		add(CrateEntry{Path: name, Name: path.Base(name), MediaType: mediaTypes[path.Ext(name)], Size: int64(len(files[name]))})
	}
	return c
}

// mediaTypes are those of the report's files.
var mediaTypes = map[string]string{".html": "text/html", ".txt": "text/plain", ".md": "text/markdown", ".tex": "application/x-tex",
	".csv": "text/csv", ".json": "application/json", ".svg": "image/svg+xml", ".pdf": "application/pdf", ".png": "image/png"}

type entity map[string]any

func id(s string) entity { return entity{"@id": s} }

func ids(paths []string) []entity {
	out := []entity{}
	for _, p := range paths {
		out = append(out, id(p))
	}
	return out
}

// JSON returns the content of ro-crate-metadata.json. Paths that leave the crate's
// directory, and actions on files that are not in it, are errors.
func (c Crate) JSON() ([]byte, error) {
	if c.Name == "" || c.Published.IsZero() {
		return nil, errors.New("crate: a name and a date of publication are needed")
	}
	root := entity{"@id": "./", "@type": "Dataset", "name": c.Name, "datePublished": c.Published.UTC().Format("2006-01-02")}
	if c.ID != "" {
		root["identifier"] = c.ID
	}
	// The specification wants both of every crate.
	if root["description"] = c.Description; c.Description == "" {
		root["description"] = "The artifacts, the report and the provenance of the run " + c.Name + "."
	}
	if root["license"] = id(c.License); c.License == "" {
		root["license"] = "No licence was chosen for these results. Data, models and benchmarks they were made from have terms of their own."
	}
	graph := []entity{
		{"@id": CrateFile, "@type": "CreativeWork", "conformsTo": id("https://w3id.org/ro/crate/1.1"), "about": id("./")},
		root,
	}
	known := map[string]bool{}
	var parts, mentions []string
	for _, f := range c.Files {
		if f.Path == "" || path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || strings.HasPrefix(f.Path, "..") || strings.Contains(f.Path, `\`) {
			return nil, fmt.Errorf("crate: the path %q is not inside the crate's directory", f.Path)
		}
		if known[f.Path] {
			return nil, fmt.Errorf("crate: the file %q is listed twice", f.Path)
		}
		known[f.Path] = true
		parts = append(parts, f.Path)
		e := entity{"@id": f.Path, "@type": "File", "name": f.Name}
		if f.Size > 0 {
			e["contentSize"] = fmt.Sprint(f.Size)
		}
		if f.MediaType != "" {
			e["encodingFormat"] = f.MediaType
		}
		if hex, ok := strings.CutPrefix(f.Digest, "sha256:"); ok {
			e["sha256"] = hex
		}
		graph = append(graph, e)
	}
	programs := []string{}
	for _, a := range c.Actions {
		for _, p := range append(slices.Clone(a.Objects), a.Results...) {
			if !known[p] {
				return nil, fmt.Errorf("crate: the action %s names %q, which is not a file of the crate", a.Name, p)
			}
		}
		e := entity{"@id": a.ID, "@type": "CreateAction", "name": a.Name, "object": ids(a.Objects), "result": ids(a.Results)}
		if a.Description != "" {
			e["description"] = a.Description
		}
		if !a.Started.IsZero() {
			e["startTime"] = a.Started.UTC().Format(time.RFC3339)
		}
		if !a.Finished.IsZero() {
			e["endTime"] = a.Finished.UTC().Format(time.RFC3339)
		}
		if a.Software != "" {
			i := slices.Index(programs, a.Software)
			if i < 0 {
				i = len(programs)
				programs = append(programs, a.Software)
			}
			e["instrument"] = id(fmt.Sprintf("#program-%d", i+1))
		}
		mentions = append(mentions, a.ID)
		graph = append(graph, e)
	}
	for i, name := range programs {
		graph = append(graph, entity{"@id": fmt.Sprintf("#program-%d", i+1), "@type": "SoftwareApplication", "name": name})
	}
	var authors []string
	for i, p := range c.Authors {
		name := strings.TrimSpace(p.Given + " " + p.Family)
		who := p.ORCID
		if who == "" {
			who = fmt.Sprintf("#author-%d", i+1)
		}
		authors = append(authors, who)
		kind := "Person"
		if p.Given == "" {
			kind = "Organization" // a group
		}
		graph = append(graph, entity{"@id": who, "@type": kind, "name": name})
	}
	if c.License != "" {
		graph = append(graph, entity{"@id": c.License, "@type": "CreativeWork", "name": "licence", "url": c.License})
	}
	root["hasPart"] = ids(parts)
	if len(mentions) > 0 {
		root["mentions"] = ids(mentions)
	}
	if len(authors) > 0 {
		root["author"] = ids(authors)
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(entity{"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}); err != nil {
		return nil, fmt.Errorf("crate: %w", err)
	}
	return buf.Bytes(), nil
}
