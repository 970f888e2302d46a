package workflows

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// assign applies one --set to the parsed file.
func assign(root *yaml.Node, set string) error {
	path, text, ok := strings.Cut(set, "=")
	if !ok || path == "" {
		return &SpecError{File: "--set", Reason: fmt.Sprintf("%q is not key=value, for example batches.method=sorted", set)}
	}
	var v yaml.Node
	if err := yaml.Unmarshal([]byte(text), &v); err != nil || len(v.Content) == 0 {
		v = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}}}
	}
	mark(&v)
	key := func(name string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name, Line: ofAssignment}
	}
	n := root
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		next := child(n, part)
		if next == nil {
			if n.Kind != yaml.MappingNode {
				return &SpecError{File: "--set", Key: path, Reason: fmt.Sprintf("%q is not a mapping, so it has no %q", n.Value, part)}
			}
			next = &yaml.Node{Kind: yaml.MappingNode, Line: ofAssignment}
			n.Content = append(n.Content, key(part), next)
		}
		n = next
	}
	last := parts[len(parts)-1]
	if c := child(n, last); c != nil {
		*c = *v.Content[0]
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return &SpecError{File: "--set", Key: path, Reason: "the key before the last dot is not a mapping"}
	}
	n.Content = append(n.Content, key(last), v.Content[0])
	return nil
}

// mark makes mistakes in n be told as of --set: its lines are not the file's.
func mark(n *yaml.Node) {
	n.Line = ofAssignment
	for _, c := range n.Content {
		mark(c)
	}
}

// fieldsOf maps the json names of t's fields to their types, embedded structs included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || (f.Anonymous && name == "") {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			keys = append(keys, name)
		}
	}
	return keys
}

// checkKey follows a dotted key through t.
func checkKey(t reflect.Type, parts []string) error {
	for _, part := range parts {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Struct:
			f, ok := fieldsOf(t)[part]
			if !ok {
				return errors.New(unknownKey(part, t))
			}
			t = f
		case reflect.Map:
			t = t.Elem()
		default:
			return fmt.Errorf("%s is below %s, which has no keys", part, kindName(t))
		}
	}
	return nil
}

func unknownKey(key string, t reflect.Type) string {
	if near := nearest(key, keysOf(t)); near != "" {
		return "unknown key; did you mean " + near + "?"
	}
	return "unknown key; known here: " + strings.Join(keysOf(t), ", ")
}

// nearest returns the known key that a typing mistake may have meant, or "".
func nearest(key string, known []string) string {
	best, bestDistance := "", max(2, len(key)/3)+1
	for _, k := range known {
		d := levenshtein.ComputeDistance(strings.ToLower(key), strings.ToLower(k))
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

func firstN(s []string, n int) []string { return slices.Clone(s[:min(n, len(s))]) }

func join(key, part string) string {
	if key == "" {
		return part
	}
	return key + "." + part
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	}
	return "a whole number"
}
