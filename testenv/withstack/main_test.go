package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/testenv"
)

func TestRun(t *testing.T) {
	bin, err := testenv.Cached(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	// What this test itself runs under must not reach the command.
	t.Setenv(testenv.EndpointVariable, "")
	for name, tt := range map[string]struct {
		args []string
		code int
		want string // in the command's output
		fail string // in the error
	}{
		"the command's exit code is passed through": {args: []string{"-bin", bin, "--", "sh", "-c", "exit 7"}, code: 7},
		"the command is told the endpoint":          {args: []string{"-bin", bin, "--", "sh", "-c", "echo $" + testenv.EndpointVariable}, want: `"temporal":"127.0.0.1:`},
		"a command that is not there is an error":   {args: []string{"-bin", bin, "--", "no-such-command"}, code: 1, fail: "no-such-command"},
		"no command is wrong usage":                 {args: []string{"-bin", bin}, code: 2, fail: "no command"},
		"an unknown flag is wrong usage":            {args: []string{"-nonsense"}, code: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code, err := run(t.Context(), tt.args, &stdout, &stderr)
			if code != tt.code {
				t.Errorf("code %d, want %d; %v\n%s", code, tt.code, err, &stderr)
			}
			if (err != nil) != (tt.fail != "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("error %v, want %q in it", err, tt.fail)
			}
			if !strings.Contains(stdout.String(), tt.want) {
				t.Errorf("output %q, want %q in it", &stdout, tt.want)
			}
		})
	}
}
