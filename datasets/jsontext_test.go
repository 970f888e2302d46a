package datasets

import (
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
