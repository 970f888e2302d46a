package datasets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// CheckJSONText says where a JSON text holds what no text can: bytes that are not UTF-8, or half a surrogate pair (such as \ud83d without
// the other half). Decoders put U+FFFD in their place without a word.
func CheckJSONText(raw []byte) error {
	for i := 0; i < len(raw); {
		if raw[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(raw[i:])
		if r == utf8.RuneError && n == 1 {
			return fmt.Errorf("is not UTF-8: byte %#02x at %d; convert it, for example with iconv -t UTF-8", raw[i], i)
		}
		i += n
	}
	for i := 0; ; {
		k := bytes.IndexByte(raw[i:], '\\')
		if k < 0 {
			return nil
		}
		i += k
		switch unit, ok := escapedUnit(raw[i:]); {
		case !ok:
			i += 2 // another escape, which may be of a backslash
			if i > len(raw) {
				return nil
			}
		case unit < 0xd800 || unit > 0xdfff:
			i += 6
		default:
			if low, ok := escapedUnit(raw[i+6:]); unit >= 0xdc00 || !ok || low < 0xdc00 || low > 0xdfff {
				return fmt.Errorf("has half a surrogate pair, %s, at %d: a character was cut in two; mend it where the file was made", raw[i:i+6], i)
			}
			i += 12
		}
	}
}

// escapedUnit reads an escape \uXXXX at the start of s.
func escapedUnit(s []byte) (unit uint64, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return unit, err == nil
}

// ExplainJSON says a decoder's complaint about a wrong type in the words of JSON instead of Go's types; other errors stay as they are.
func ExplainJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	value, _, _ := strings.Cut(wrong.Value, " ") // of a number the number follows
	got := map[string]string{"array": "a list", "object": "an object", "string": "a string", "number": "a number", "bool": "true or false"}[value]
	want := "a number"
	switch wrong.Type.Kind() {
	case reflect.Struct, reflect.Map:
		want = "an object"
	case reflect.Slice, reflect.Array:
		want = "a list"
	case reflect.String:
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	}
	if wrong.Field == "" {
		return fmt.Errorf("is %s where %s is expected", got, want)
	}
	return fmt.Errorf("field %q is %s where %s is expected", wrong.Field, got, want)
}
