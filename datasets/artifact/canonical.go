package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// CanonicalJSON encodes v so that equal values have equal bytes, in the way of RFC 8785 (JSON Canonicalization
// Scheme): members sorted by UTF-16 code units, no white space, shortest escapes, numbers as ECMAScript writes them.
// It departs from the RFC in one point: an integer literal keeps all its digits, where the RFC would round it to
// 53 bits; seeds and hashes need all 64.
//
// v may be any value encoding/json takes; a json.RawMessage is parsed. What has no one meaning is refused: NaN,
// infinities, numbers beyond float64, repeated members, strings that are not Unicode.
func CanonicalJSON(v any) ([]byte, error) {
	if raw, ok := v.(json.RawMessage); ok {
		return canonicalJSON(raw)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	// encoding/json writes a string's invalid bytes as this escape and a genuine U+FFFD literally, so two different
	// strings would get one key.
	if hasEscape(buf.Bytes(), func(r rune) bool { return r == utf8.RuneError }) {
		return nil, errors.New("canonical JSON: a string is not valid UTF-8")
	}
	return canonicalJSON(buf.Bytes())
}

func canonicalJSON(raw []byte) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("canonical JSON: %w", err) }
	if !utf8.Valid(raw) {
		return fail(errors.New("not valid UTF-8"))
	}
	if !json.Valid(raw) {
		var v any
		err := json.Unmarshal(raw, &v)
		if err == nil {
			err = errors.New("not JSON")
		}
		return fail(err)
	}
	if loneSurrogate(raw) {
		return fail(errors.New("a string holds half a surrogate pair"))
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	out, err := appendCanonical(make([]byte, 0, len(raw)), dec)
	if err != nil {
		return fail(err)
	}
	return out, nil
}

// appendCanonical reads one value from dec. Its depth is bounded by json.Valid.
func appendCanonical(out []byte, dec *json.Decoder) ([]byte, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case nil:
		return append(out, "null"...), nil
	case bool:
		return strconv.AppendBool(out, t), nil
	case string:
		return appendString(out, t), nil
	case json.Number:
		return appendNumber(out, string(t))
	case json.Delim:
		if t == '[' {
			return appendArray(out, dec)
		}
		return appendObject(out, dec)
	}
	return nil, fmt.Errorf("unexpected token %v", token)
}

func appendArray(out []byte, dec *json.Decoder) ([]byte, error) {
	out = append(out, '[')
	var err error
	for first := true; dec.More(); first = false {
		if !first {
			out = append(out, ',')
		}
		if out, err = appendCanonical(out, dec); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	return append(out, ']'), nil
}

func appendObject(out []byte, dec *json.Decoder) ([]byte, error) {
	type member struct {
		name  string
		order []uint16
		value []byte
	}
	var members []member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		value, err := appendCanonical(nil, dec)
		if err != nil {
			return nil, err
		}
		n := name.(string) // json.Valid has seen to it
		members = append(members, member{n, utf16.Encode([]rune(n)), value})
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	slices.SortFunc(members, func(a, b member) int { return slices.Compare(a.order, b.order) })
	out = append(out, '{')
	for i, m := range members {
		if i > 0 {
			if members[i-1].name == m.name {
				return nil, fmt.Errorf("member %q is there twice", m.name)
			}
			out = append(out, ',')
		}
		out = append(appendString(out, m.name), ':')
		out = append(out, m.value...)
	}
	return append(out, '}'), nil
}

func appendNumber(out []byte, literal string) ([]byte, error) {
	if !strings.ContainsAny(literal, ".eE") {
		if literal == "-0" {
			literal = "0"
		}
		return append(out, literal...), nil
	}
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil {
		return nil, fmt.Errorf("number %s is outside float64", literal)
	}
	if f == 0 {
		return append(out, '0'), nil
	}
	if a := math.Abs(f); a >= 1e-6 && a < 1e21 {
		return strconv.AppendFloat(out, f, 'f', -1, 64), nil
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	// ECMAScript writes 1e-7 where Go writes 1e-07.
	if mantissa, exponent, ok := strings.Cut(s, "e"); ok && len(exponent) == 3 && exponent[1] == '0' {
		s = mantissa + "e" + exponent[:1] + exponent[2:]
	}
	return append(out, s...), nil
}

func appendString(out []byte, s string) []byte {
	out = append(out, '"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			out = append(out, '\\', byte(r))
		case '\b':
			out = append(out, `\b`...)
		case '\t':
			out = append(out, `\t`...)
		case '\n':
			out = append(out, `\n`...)
		case '\f':
			out = append(out, `\f`...)
		case '\r':
			out = append(out, `\r`...)
		default:
			if r < 0x20 {
				out = fmt.Appendf(out, `\u%04x`, r)
			} else {
				out = utf8.AppendRune(out, r)
			}
		}
	}
	return append(out, '"')
}

// escapes calls visit with each \uXXXX escape of valid JSON and whether another one follows at once.
func escapes(raw []byte, visit func(r rune, adjacent bool)) {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // backslashes occur in strings only, and always escape the next byte
		if i+4 >= len(raw) || raw[i] != 'u' {
			continue
		}
		v, err := strconv.ParseUint(string(raw[i+1:i+5]), 16, 16)
		if err != nil {
			continue
		}
		i += 4
		visit(rune(v), i+2 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u')
	}
}

func hasEscape(raw []byte, is func(rune) bool) (found bool) {
	escapes(raw, func(r rune, _ bool) { found = found || is(r) })
	return found
}

func loneSurrogate(raw []byte) bool {
	lone, open := false, false // open: a high half waits for its low half
	escapes(raw, func(r rune, adjacent bool) {
		low := r >= 0xdc00 && r < 0xe000
		high := r >= 0xd800 && r < 0xdc00
		lone = lone || low != open || high && !adjacent
		open = high
	})
	return lone || open
}

// FieldDiff is one difference between two JSON documents.
type FieldDiff struct {
	Path string          `json:"path"`          // params.learning_rate, inputs.tokens, list[3]; empty for the whole document
	Old  json.RawMessage `json:"old,omitempty"` // nil: only in the new document
	New  json.RawMessage `json:"new,omitempty"` // nil: only in the old document
}

// Diff lists where two JSON documents differ, in order of paths: what explain prints when an action's key is not the
// one of the run before. Documents that are not JSON differ as a whole.
func Diff(a, b []byte) []FieldDiff {
	var diffs []FieldDiff
	diffValue("", a, b, &diffs)
	return diffs
}

func diffValue(path string, a, b json.RawMessage, diffs *[]FieldDiff) {
	ca, erra := canonicalJSON(a)
	cb, errb := canonicalJSON(b)
	if erra == nil && errb == nil && bytes.Equal(ca, cb) || erra != nil && errb != nil && bytes.Equal(a, b) {
		return
	}
	if erra == nil && errb == nil && ca[0] == cb[0] {
		switch ca[0] {
		case '{':
			diffObjects(path, ca, cb, diffs)
			return
		case '[':
			diffArrays(path, ca, cb, diffs)
			return
		}
	}
	*diffs = append(*diffs, FieldDiff{Path: path, Old: a, New: b})
}

func diffObjects(path string, a, b json.RawMessage, diffs *[]FieldDiff) {
	var ma, mb map[string]json.RawMessage
	if json.Unmarshal(a, &ma) != nil || json.Unmarshal(b, &mb) != nil {
		*diffs = append(*diffs, FieldDiff{Path: path, Old: a, New: b})
		return
	}
	names := map[string]bool{}
	for n := range ma {
		names[n] = true
	}
	for n := range mb {
		names[n] = true
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	for _, n := range sorted {
		sub := n
		if path != "" {
			sub = path + "." + n
		}
		diffValue(sub, ma[n], mb[n], diffs)
	}
}

func diffArrays(path string, a, b json.RawMessage, diffs *[]FieldDiff) {
	var la, lb []json.RawMessage
	if json.Unmarshal(a, &la) != nil || json.Unmarshal(b, &lb) != nil {
		*diffs = append(*diffs, FieldDiff{Path: path, Old: a, New: b})
		return
	}
	at := func(l []json.RawMessage, i int) json.RawMessage {
		if i < len(l) {
			return l[i]
		}
		return nil
	}
	for i := range max(len(la), len(lb)) {
		diffValue(fmt.Sprintf("%s[%d]", path, i), at(la, i), at(lb, i), diffs)
	}
}

// digestOf writes the sha256 of data as the store does.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
