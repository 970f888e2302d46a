package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// SpecError is a mistake in an experiment file: where it is and what to do.
type SpecError struct {
	File   string // as the user named it, or "--set"
	Line   int    // 1-based; 0 when the mistake has no place in the file
	Key    string // dotted path, empty for the whole file
	Reason string
}

// Error reads "demo.yaml:12: batches.metod: unknown key; did you mean method?".
func (e *SpecError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Reason)
	return b.String()
}

// ParseSpec reads an experiment file. It is strict: a key that is not known, a
// value of the wrong type, a key given twice are errors with file:line and, for keys,
// the nearest known one. sets are "dotted.key=value" assignments (YAML values) that override the
// file.
func ParseSpec(file string, data []byte, sets []string) (Spec, error) {
	p := &specParser{file: file}
	var doc, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return Spec{}, p.syntaxError(err)
	}
	if err := d.Decode(&second); err == nil {
		return Spec{}, p.mistake(&second, "", "the file holds a second YAML document; one file describes one experiment")
	} else if !errors.Is(err, io.EOF) {
		return Spec{}, p.syntaxError(err)
	}
	if doc.Kind == 0 || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return Spec{}, &SpecError{File: file, Reason: "the file holds no experiment; it is a mapping that begins with name: and documents: (see starter/examples)"}
	}
	root := doc.Content[0]
	for _, s := range sets {
		if err := assign(root, s); err != nil {
			return Spec{}, err
		}
	}
	tree, err := p.value(root, reflect.TypeFor[Spec](), "")
	if err != nil {
		return Spec{}, err
	}
	spec, err := decodeSpec(tree)
	if err != nil {
		return Spec{}, &SpecError{File: file, Reason: err.Error()}
	}
	spec, err = spec.withDefaults()
	if err != nil {
		return Spec{}, p.locate(root, err)
	}
	return spec, nil
}

func decodeSpec(tree any) (Spec, error) {
	b, err := json.Marshal(tree)
	if err != nil {
		return Spec{}, err
	}
	var spec Spec
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(&spec)
	return spec, err
}

// RecordedSpec reads the spec of a run record, which is complete.
func RecordedSpec(raw json.RawMessage) (Spec, error) {
	tree, err := decodeTree(raw)
	if err != nil {
		return Spec{}, err
	}
	return decodeSpec(tree)
}

// decodeTree reads a JSON object and keeps its numbers as written: float64 would round long seeds.
func decodeTree(raw json.RawMessage) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	return tree, nil
}

type specParser struct{ file string }

// ofAssignment is the line of what --set put into the tree.
const ofAssignment = -1

// mistake describes what is wrong with n.
func (p *specParser) mistake(n *yaml.Node, key, reason string, args ...any) *SpecError {
	e := &SpecError{File: p.file, Key: key, Reason: fmt.Sprintf(reason, args...)}
	e.place(n)
	return e
}

func (e *SpecError) place(n *yaml.Node) {
	e.Line = n.Line
	if n.Line == ofAssignment {
		e.File, e.Line = "--set", 0
	}
}

// syntaxError turns "yaml: line 3: did not find …" into file:line.
func (p *specParser) syntaxError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, tail, ok := strings.Cut(rest, ": "); ok {
			if line, convErr := strconv.Atoi(n); convErr == nil {
				return &SpecError{File: p.file, Line: line, Reason: "not valid YAML: " + tail}
			}
		}
	}
	return &SpecError{File: p.file, Reason: "not valid YAML: " + msg}
}

// locate gives a mistake found after parsing ("batches.max_length: …") its line.
func (p *specParser) locate(root *yaml.Node, err error) error {
	se, ok := err.(*SpecError)
	if !ok {
		return &SpecError{File: p.file, Reason: err.Error()}
	}
	se.File = p.file
	n := root
	for _, part := range strings.Split(se.Key, ".") {
		next := child(n, part)
		if next == nil {
			break
		}
		n = next
		se.place(n)
	}
	return se
}

func child(n *yaml.Node, key string) *yaml.Node {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i]
		}
	}
	return nil
}

// value checks n against the Go type t and returns it as plain JSON values.
func (p *specParser) value(n *yaml.Node, t reflect.Type, key string) (any, error) {
	fail := func(reason string, args ...any) (any, error) {
		return nil, p.mistake(n, key, reason, args...)
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[json.RawMessage]() || t.Kind() == reflect.Interface {
		return p.free(n, key)
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil, nil
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return fail("wanted a mapping with keys such as %s, got %s", strings.Join(firstN(keysOf(t), 3), ", "), describe(n))
		}
		return p.structure(n, t, key)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			return fail("wanted a mapping, got %s", describe(n))
		}
		out := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i].Value
			v, err := p.value(n.Content[i+1], t.Elem(), join(key, k))
			if err != nil {
				return nil, err
			}
			out[k] = v
		}
		return out, nil
	case reflect.Slice, reflect.Array:
		if n.Kind == yaml.ScalarNode && t.Elem().Kind() == reflect.String {
			v, err := p.value(n, t.Elem(), key) // one string stands for a list of one
			return []any{v}, err
		}
		if n.Kind != yaml.SequenceNode {
			return fail("wanted a list, got %s", describe(n))
		}
		out := []any{}
		for i, c := range n.Content {
			v, err := p.value(c, t.Elem(), join(key, strconv.Itoa(i)))
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	if n.Kind != yaml.ScalarNode {
		return fail("wanted %s, got %s", kindName(t), describe(n))
	}
	return p.scalar(n, t, key)
}

func (p *specParser) scalar(n *yaml.Node, t reflect.Type, key string) (any, error) {
	fail := func(reason string, args ...any) (any, error) {
		return nil, p.mistake(n, key, reason, args...)
	}
	switch t.Kind() {
	case reflect.String:
		return n.Value, nil
	case reflect.Bool:
		var b bool
		if n.Tag != "!!bool" || n.Decode(&b) != nil {
			return fail("wanted true or false, got %q", n.Value)
		}
		return b, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		text := strings.ReplaceAll(n.Value, "_", "")
		if t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64 {
			u, err := strconv.ParseUint(text, 10, t.Bits())
			if err != nil {
				return fail("wanted a whole number that is not negative, got %q", n.Value)
			}
			return u, nil
		}
		i, err := strconv.ParseInt(text, 10, t.Bits())
		if err != nil {
			return fail("wanted a whole number, got %q", n.Value)
		}
		return i, nil
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return fail("wanted a number, got %q", n.Value)
		}
		return f, nil
	}
	return fail("cannot be set from a file")
}

// structure checks a mapping against a struct's json names.
func (p *specParser) structure(n *yaml.Node, t reflect.Type, key string) (any, error) {
	fields := fieldsOf(t)
	out, seen := map[string]any{}, map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		f, ok := fields[k.Value]
		if !ok {
			return nil, p.mistake(k, join(key, k.Value), "%s", unknownKey(k.Value, t))
		}
		if line, twice := seen[k.Value]; twice {
			return nil, p.mistake(k, join(key, k.Value), "given twice, first on line %d", line)
		}
		seen[k.Value] = k.Line
		v, err := p.value(n.Content[i+1], f, join(key, k.Value))
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[k.Value] = v
		}
	}
	return out, nil
}

// free reads a value of any shape (the right side of a method's set:).
func (p *specParser) free(n *yaml.Node, key string) (any, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, p.mistake(n, key, "%v", err)
	}
	if _, err := json.Marshal(v); err != nil {
		return nil, p.mistake(n, key, "mappings need text keys here")
	}
	return v, nil
}
