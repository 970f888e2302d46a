package main

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

func TestChoosePorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	var free [3]int
	for i := range free {
		if free[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		args   []string
		last   ports
		want   int  // of Temporal; 0: any but the taken one
		notice bool // says that a port was taken
	}{
		"a port named on the command line is used":          {args: []string{"--port", strconv.Itoa(free[0])}, last: ports{Temporal: free[1]}, want: free[0]},
		"else the one used last, so that clients reconnect": {last: ports{Temporal: free[1]}, want: free[1]},
		"0 means any, and still the one used last":          {args: []string{"--port", "0"}, last: ports{Temporal: free[2]}, want: free[2]},
		"0 without a past is any, without a notice":         {args: []string{"--port", "0"}},
		"a taken one is replaced, with a notice":            {args: []string{"--port", strconv.Itoa(taken)}, notice: true},
		"one that was used last and is taken as well":       {last: ports{Temporal: taken}, notice: true},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(append([]string{"--dir", "d", "--ui-port", "0", "--s3-port", "0"}, tt.args...), &strings.Builder{})
			if err != nil {
				t.Fatal(err)
			}
			var notices strings.Builder
			got, err := choosePorts(o, tt.last, &notices)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != 0 && got.Temporal != tt.want || got.Temporal == taken || got.Temporal == 0 {
				t.Errorf("port %d, want %d", got.Temporal, tt.want)
			}
			if (notices.Len() > 0) != tt.notice {
				t.Errorf("notices: %q", &notices)
			}
			if got.UI == got.S3 || got.UI == got.Temporal || got.S3 == got.Temporal {
				t.Errorf("one port twice: %+v", got)
			}
		})
	}
}
