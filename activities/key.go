package activities

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// meaning returns v as JSON without the fields that do not change what a result means: those tagged
// `key:"-"` (paths, endpoints' addresses, concurrency, budgets, checkpoint intervals). It is what
// an action key holds of a stage's parameters.
func meaning(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	dropMeaningless(tree, reflect.TypeOf(v))
	return json.Marshal(tree)
}

func dropMeaningless(tree any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := tree.(type) {
	case []any:
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			return
		}
		for _, e := range value {
			dropMeaningless(e, t.Elem())
		}
	case map[string]any:
		if t.Kind() == reflect.Map {
			for _, e := range value {
				dropMeaningless(e, t.Elem())
			}
			return
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Tag.Get("key") == "-" {
				delete(value, name)
			} else if e, ok := value[name]; ok {
				dropMeaningless(e, f.Type)
			}
		}
	}
}

// decodeStrict reads parameters from a call; an unknown field comes from a newer
// version of the workflow, and ignoring it could change what the result means.
func decodeStrict(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badConfig("parameters: %w (was the run started by another version of starter than the worker's?)", err)
	}
	return nil
}

// decodeParams reads a stage's parameters with defaults filled in.
func decodeParams[P any](raw json.RawMessage) (P, error) {
	var p P
	if err := decodeStrict(raw, &p); err != nil {
		return p, err
	}
	if d, ok := any(p).(interface{ Defaults() P }); ok {
		p = d.Defaults()
	}
	if v, ok := any(p).(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return p, badConfig("%w", err)
		}
	}
	return p, nil
}

// recordedParams reads parameters as a manifest has them. They are no call's: paths, addresses and whatever else means nothing to the
// result are left out, so that what a call must have may lack.
func recordedParams[P any](manifest json.RawMessage) (P, error) {
	var p P
	if err := decodeStrict(manifest, &p); err != nil {
		return p, err
	}
	if d, ok := any(p).(interface{ Defaults() P }); ok {
		p = d.Defaults()
	}
	return p, nil
}

// describeParams is decodeParams followed by meaning, for stages keyed by their parameters alone.
func describeParams[P any](raw json.RawMessage) (json.RawMessage, error) {
	p, err := decodeParams[P](raw)
	if err != nil {
		return nil, err
	}
	m, err := meaning(p)
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	return m, nil
}

func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // only for types that hold what JSON cannot
		panic(err)
	}
	return b
}
