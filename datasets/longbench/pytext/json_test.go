package pytext

import "testing"

func TestNumbersThatJSONDoesNotHaveBecomeNull(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"ordinary text stays":            {`{"a":[1,null,"x"]}`, `{"a":[1,null,"x"]}`},
		"a missing value":                {`{"all_classes": NaN, "length": 3}`, `{"all_classes": null, "length": 3}`},
		"both infinities":                {`[Infinity,-Infinity,-1]`, `[null,null,-1]`},
		"words in quotes stay":           {`{"NaN":"-Infinity","b":NaN}`, `{"NaN":"-Infinity","b":null}`},
		"an escaped quote ends no text":  {`{"a":"\"NaN","b":NaN}`, `{"a":"\"NaN","b":null}`},
		"an escaped backslash ends none": {`{"a":"\\","b":NaN,"c":"NaN\\"}`, `{"a":"\\","b":null,"c":"NaN\\"}`},
		"a text that does not end":       {`{"a":"NaN\`, `{"a":"NaN\`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(JSON([]byte(tt.in))); got != tt.want {
				t.Errorf("%s became %s, want %s", tt.in, got, tt.want)
			}
		})
	}
}
