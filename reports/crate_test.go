package reports

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func blobPath(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return "blobs/sha256/" + hex[:2] + "/" + hex
}

func TestCrateDescribesEveryArtifactAndWhatMadeIt(t *testing.T) {
	s := demoStudy()
	s.Stages = s.Stages[:5]
	c := NewCrate(s, blobPath, map[string][]byte{"report.html": []byte("<!doctype html>"), "tables/method.csv": []byte("a,b")})
	c.License = "https://creativecommons.org/licenses/by/4.0/"
	c.Authors = []Person{{Family: "Curie", Given: "Marie"}}
	got, err := c.JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, CrateFile, got)
	var crate struct {
		Graph []map[string]any `json:"@graph"`
	}
	if err := json.Unmarshal(got, &crate); err != nil {
		t.Fatal(err)
	}
	defined := map[string]bool{}
	for _, e := range crate.Graph {
		defined[e["@id"].(string)] = true
	}
	for _, e := range crate.Graph {
		for _, key := range []string{"hasPart", "object", "result", "mentions", "author"} {
			list, _ := e[key].([]any)
			for _, x := range list {
				if ref := x.(map[string]any)["@id"].(string); !defined[ref] {
					t.Errorf("%s of %v names %s, which is not described", key, e["@id"], ref)
				}
			}
		}
	}
	again, err := NewCrate(s, blobPath, nil).JSON()
	if err != nil || bytes.Equal(got, again) {
		t.Error("the report's files make no difference", err)
	}
}

func TestCratesThatLeaveTheirDirectoryAreRefused(t *testing.T) {
	day := time.Date(2024, 1, 31, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		crate Crate
		want  string
	}{
		"an absolute path":    {Crate{Name: "x", Published: day, Files: []CrateEntry{{Path: "/etc/passwd"}}}, `"/etc/passwd" is not inside`},
		"a path upwards":      {Crate{Name: "x", Published: day, Files: []CrateEntry{{Path: "../x"}}}, `"../x" is not inside`},
		"a file listed twice": {Crate{Name: "x", Published: day, Files: []CrateEntry{{Path: "a"}, {Path: "a"}}}, `"a" is listed twice`},
		"an unknown result":   {Crate{Name: "x", Published: day, Actions: []CrateAction{{Name: "train", Results: []string{"b"}}}}, `names "b", which is not a file of the crate`},
		"no date":             {Crate{Name: "x"}, "a name and a date of publication are needed"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tt.crate.JSON(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func TestCitation(t *testing.T) {
	c := Citation{
		Title: "LongAlign-Go", Abstract: "Long-context alignment as durable workflows.", Version: "1.0.0",
		Released: time.Date(2024, 1, 31, 0, 0, 0, 0, time.UTC), License: "Apache-2.0",
		Authors: []Person{{Family: "The LongAlign-Go authors"}, {Family: "Curie", Given: "Marie"}},
	}
	got, err := c.CFF()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "CITATION.cff", got)
	var parsed map[string]any
	if err := yaml.Unmarshal(got, &parsed); err != nil {
		t.Fatal(err)
	}
	if _, err := (Citation{Title: "x"}).CFF(); err == nil {
		t.Error("a citation without authors was written")
	}
}

func TestACrateHasWhatTheSpecificationAsksFor(t *testing.T) {
	for name, c := range map[string]Crate{
		"the least":  {Name: "x", Published: time.Date(2024, 1, 31, 0, 0, 0, 0, time.UTC)},
		"with words": {Name: "x", Description: "y", License: "https://example.org/l", Published: time.Date(2024, 1, 31, 0, 0, 0, 0, time.UTC), Authors: []Person{{Family: "Us"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := c.JSON()
			if err != nil {
				t.Fatal(err)
			}
			var crate struct {
				Context string           `json:"@context"`
				Graph   []map[string]any `json:"@graph"`
			}
			if err := json.Unmarshal(b, &crate); err != nil || crate.Context != "https://w3id.org/ro/crate/1.1/context" {
				t.Fatal(err, crate.Context)
			}
			entities := map[string]map[string]any{}
			for _, e := range crate.Graph {
				id, _ := e["@id"].(string)
				if id == "" || e["@type"] == nil || entities[id] != nil {
					t.Errorf("entity %v has no @id or @type, or is there twice", e)
				}
				entities[id] = e
			}
			about, _ := entities[CrateFile]["about"].(map[string]any)
			if entities[CrateFile]["@type"] != "CreativeWork" || about["@id"] != "./" {
				t.Errorf("the descriptor is %v", entities[CrateFile])
			}
			root := entities["./"]
			if root["@type"] != "Dataset" {
				t.Errorf("the root is %v", root)
			}
			for _, key := range []string{"name", "description", "datePublished", "license"} {
				if root[key] == nil || root[key] == "" {
					t.Errorf("the root has no %s", key)
				}
			}
			if _, err := time.Parse("2006-01-02", root["datePublished"].(string)); err != nil {
				t.Error(err)
			}
			if l, ok := root["license"].(map[string]any); ok && entities[l["@id"].(string)] == nil {
				t.Errorf("licence %v is not described", l)
			}
		})
	}
}
