package artifact

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCanonicalJSON(t *testing.T) {
	for name, tt := range map[string]struct {
		in   any
		want string
	}{
		"members are sorted":                       {json.RawMessage(` {"b": 1, "a" : [ true, null ] } `), `{"a":[true,null],"b":1}`},
		"members are sorted by UTF-16 code units":  {map[string]int{"\ufb33": 1, "😀": 2, "ö": 3, "\r": 4, "1": 5, "": 6}, `{"":6,"\r":4,"1":5,"ö":3,"😀":2,"` + "\ufb33" + `":1}`},
		"members of a struct are sorted too":       {struct{ B, A int }{2, 1}, `{"A":1,"B":2}`},
		"no HTML escaping":                         {"<a href='x'>&</a>\u2028", `"<a href='x'>&</a>` + "\u2028" + `"`},
		"short escapes":                            {"\"\\/\b\f\n\r\t\x01\x1f\x7f", `"\"\\/\b\f\n\r\t\u0001\u001f` + "\x7f" + `"`},
		"escapes that need not be":                 {json.RawMessage(`"\u0061\/\ud83d\ude00"`), `"a/😀"`},
		"integers keep their digits":               {map[string]any{"seed": uint64(math.MaxUint64), "min": int64(math.MinInt64)}, `{"min":-9223372036854775808,"seed":18446744073709551615}`},
		"integers beyond 64 bits too":              {json.RawMessage(`123456789012345678901234567890`), `123456789012345678901234567890`},
		"a float that is an integer is an integer": {[]any{1.0, json.RawMessage(`1.0`), json.RawMessage(`1e2`), json.RawMessage(`10E-1`)}, `[1,1,100,1]`},
		"floats as ECMAScript writes them":         {[]float64{0.1, 2e-5, 1e-6, 1e-7, 1e20, 1e21, 5e-324, 1.7976931348623157e308, 333333333.33333329}, `[0.1,0.00002,0.000001,1e-7,100000000000000000000,1e+21,5e-324,1.7976931348623157e+308,333333333.3333333]`},
		"zero has no sign":                         {[]any{math.Copysign(0, -1), json.RawMessage(`-0`), json.RawMessage(`-0.0e5`)}, `[0,0,0]`},
		"empty values":                             {[]any{[]int{}, map[string]int{}, "", nil}, `[[],{},"",null]`},
		"a genuine replacement character":          {"a\ufffdb", `"a` + "\ufffd" + `b"`},
	} {
		got, err := CanonicalJSON(tt.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%s (−want +got):\n%s", name, diff)
		}
	}
}

func TestCanonicalJSONRefusesWhatHasNoOneMeaning(t *testing.T) {
	for name, tt := range map[string]struct {
		in  any
		say string
	}{
		"NaN":                      {math.NaN(), "NaN"},
		"infinity":                 {[]float64{math.Inf(1)}, "Inf"},
		"a number beyond float64":  {json.RawMessage(`1e400`), "1e400"},
		"a member that is twice":   {json.RawMessage(`{"a":1,"b":2,"\u0061":3}`), `"a"`},
		"a string that is no text": {"a\xffb", "UTF-8"},
		"a key that is no text":    {map[string]int{"a\xff": 1}, "UTF-8"},
		"raw bytes that are not":   {json.RawMessage("\"a\xffb\""), "UTF-8"},
		"half a surrogate pair":    {json.RawMessage(`"\ud800"`), "surrogate"},
		"the other half":           {json.RawMessage(`"\udc00"`), "surrogate"},
		"halves apart":             {json.RawMessage(`"\ud800x\udc00"`), "surrogate"},
		"two values":               {json.RawMessage(`1 2`), "canonical JSON"},
		"nothing":                  {json.RawMessage(``), "canonical JSON"},
		"a channel":                {make(chan int), "chan"},
	} {
		got, err := CanonicalJSON(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: got %s, error %v; want an error that says %q", name, got, err, tt.say)
		}
	}
}

// shuffled writes v as JSON with members in random order and random white space.
func shuffled(r *rand.Rand, v any) string {
	space := func() string { return strings.Repeat(" \n\t"[r.IntN(3):], r.IntN(2)) }
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		var parts []string
		for _, k := range keys {
			name, _ := json.Marshal(k)
			parts = append(parts, space()+string(name)+space()+":"+shuffled(r, v[k]))
		}
		return "{" + strings.Join(parts, ",") + space() + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, shuffled(r, e))
		}
		return space() + "[" + strings.Join(parts, ",") + "]" + space()
	}
	b, _ := json.Marshal(v)
	return space() + string(b) + space()
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(8); {
	case n == 0 && depth > 0:
		m := map[string]any{}
		for range r.IntN(5) {
			m[randomText(r)] = randomValue(r, depth-1)
		}
		return m
	case n == 1 && depth > 0:
		l := []any{}
		for range r.IntN(5) {
			l = append(l, randomValue(r, depth-1))
		}
		return l
	case n < 4:
		return randomText(r)
	case n == 4:
		return r.Uint64()
	case n == 5:
		return math.Float64frombits(r.Uint64() &^ (1 << 62)) // finite
	case n == 6:
		return r.IntN(2) == 0
	}
	return nil
}

func randomText(r *rand.Rand) string {
	letters := []rune("ab\"\\\n\x00<é文\U0001F600\ufffd\uffff")
	out := make([]rune, r.IntN(5))
	for i := range out {
		out[i] = letters[r.IntN(len(letters))]
	}
	return string(out)
}

func TestCanonicalJSONDoesNotDependOnOrderOrWhiteSpace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		v := randomValue(r, 4)
		want, err := CanonicalJSON(v)
		if err != nil {
			t.Fatalf("%#v: %v", v, err)
		}
		text := shuffled(r, v)
		got, err := CanonicalJSON(json.RawMessage(text))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: got %s, want %s (%v)", text, got, want, err)
		}
	}
}

func FuzzCanonicalJSON(f *testing.F) {
	for _, seed := range []string{`{"b":[1,2.50,-0,1e3],"a":"\u00e9\n"}`, `"\ud83d\ude00"`, `{"a":{"a":{}}}`, `[1e-7,123456789012345678901]`, `{"a":1,"a":2}`, ``, `"\\u d800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		canonical, err := CanonicalJSON(json.RawMessage(raw))
		if err != nil || len(raw) > 2000 { // indenting deep nesting is slow, and shows nothing new
			return
		}
		again, err := CanonicalJSON(json.RawMessage(canonical))
		if err != nil || !bytes.Equal(again, canonical) {
			t.Fatalf("%q: canonical %s, once more %s (%v)", raw, canonical, again, err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, raw, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if spaced, err := CanonicalJSON(json.RawMessage(indented.Bytes())); err != nil || !bytes.Equal(spaced, canonical) {
			t.Fatalf("%q: white space changed %s into %s (%v)", raw, canonical, spaced, err)
		}
		var before, after any
		if json.Unmarshal(raw, &before) != nil || json.Unmarshal(canonical, &after) != nil || !reflect.DeepEqual(before, after) {
			t.Fatalf("%q: %s means something else", raw, canonical)
		}
		if diff := Diff(raw, canonical); diff != nil {
			t.Fatalf("%q differs from its canonical form: %v", raw, diff)
		}
	})
}

func TestDiff(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for name, tt := range map[string]struct {
		a, b string
		want []FieldDiff
	}{
		"nothing":                {`{"a":1,"b":{"c":[1,2]}}`, `{"b":{"c":[1,2.0]},"a":1}`, nil},
		"a nested field":         {`{"params":{"lr":2e-5,"wd":0}}`, `{"params":{"lr":1e-5,"wd":0}}`, []FieldDiff{{"params.lr", raw("0.00002"), raw("0.00001")}}},
		"a field that came":      {`{}`, `{"precision":"bf16"}`, []FieldDiff{{"precision", nil, raw(`"bf16"`)}}},
		"a field that went":      {`{"a":null}`, `{}`, []FieldDiff{{"a", raw("null"), nil}}},
		"an element and a tail":  {`{"l":[1,2,3]}`, `{"l":[1,5]}`, []FieldDiff{{"l[1]", raw("2"), raw("5")}, {"l[2]", raw("3"), nil}}},
		"another type":           {`{"a":[]}`, `{"a":{}}`, []FieldDiff{{"a", raw("[]"), raw("{}")}}},
		"several, in order":      {`{"z":1,"a":{"y":1,"x":1}}`, `{"z":2,"a":{"y":2,"x":2}}`, []FieldDiff{{"a.x", raw("1"), raw("2")}, {"a.y", raw("1"), raw("2")}, {"z", raw("1"), raw("2")}}},
		"the whole document":     {`1`, `"1"`, []FieldDiff{{"", raw("1"), raw(`"1"`)}}},
		"what is not a document": {`{"a":1}`, `{"a":`, []FieldDiff{{"", raw(`{"a":1}`), raw(`{"a":`)}}},
	} {
		if diff := cmp.Diff(tt.want, Diff([]byte(tt.a), []byte(tt.b))); diff != "" {
			t.Errorf("%s (−want +got):\n%s", name, diff)
		}
	}
}

func BenchmarkCanonicalJSON(b *testing.B) {
	v := map[string]any{"params": map[string]any{"lr": 2e-5, "batch_size": 8, "stages": make([]int, 100)}, "stage": "checkpoint"}
	for b.Loop() {
		if _, err := CanonicalJSON(v); err != nil {
			b.Fatal(err)
		}
	}
}
