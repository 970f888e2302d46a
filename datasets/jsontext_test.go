package datasets

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWhatNoTextCanHoldIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		`{"text":"plain"}`:                   "",
		`{"text":"ä 长 \u00e4 \ud83d\ude00"}`: "",
		`{"text":"a path C:\\ud800\\x"}`:     "",
		`{"text":"the sign \ufffd and �"}`:   "",
		`\`:                                  "",
		`\u12`:                               "",
		"{\"text\":\"a\xffb\"}":              "byte 0xff at 10",
		`{"text":"\ud83d"}`:                  `\ud83d, at 9`,
		`{"text":"\ude00\ud83d"}`:            `\ude00, at 9`,
		`{"text":"\ud83d\ud83d\ude00"}`:      `\ud83d, at 9`,
		`{"text":"x\\\ud83d\\ude00"}`:        `\ud83d, at 12`,
	} {
		err := CheckJSONText([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestWrongTypesAreSaidInTheWordsOfJSON(t *testing.T) {
	type turn struct {
		Role string `json:"role"`
	}
	for text, want := range map[string]string{
		`[1]`:                      "is a list where an object is expected",
		`{"turns":"x"}`:            `field "turns" is a string where a list is expected`,
		`{"turns":[{"role":5.5}]}`: `field "turns.role" is a number where a string is expected`,
		`{"done":{}}`:              `field "done" is an object where true or false is expected`,
		`{"n":true}`:               `field "n" is true or false where a number is expected`,
		`{"n"`:                     "unexpected end of JSON input",
	} {
		var to struct {
			Turns []turn `json:"turns"`
			Done  bool   `json:"done"`
			N     int    `json:"n"`
		}
		if err := ExplainJSON(json.Unmarshal([]byte(text), &to)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
