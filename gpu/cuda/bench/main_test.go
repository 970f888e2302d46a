package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEachPartRunsOnTheHost(t *testing.T) {
	for name, want := range map[string]string{
		"kernels": "of the roofline", "step": "model FLOP utilisation", "decode": "of memory bandwidth", "soak": "held throughout", "packs": "]", "checkpoint": "lie between two",
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := run(context.Background(), []string{name, "-device", "host", "-shape", "tiny", "-tokens", "192", "-steps", "1", "-minutes", "0"}, &out); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), want) {
				t.Errorf("the output lacks %q:\n%s", want, out.String())
			}
		})
	}
}

func TestADayWithoutACardEndsAtItsFirstStepAndSaysWhy(t *testing.T) {
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	err := run(context.Background(), []string{"day", "-device", "cuda:99"}, &out)
	if err == nil || !strings.Contains(err.Error(), "step 1: there is no device") {
		t.Fatalf("day returns %v", err)
	}
	log, err := os.ReadFile("cuda-day.log")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out.String(), string(log)); diff != "" {
		t.Errorf("the log differs from what was printed: %s", diff)
	}
	if !strings.Contains(string(log), "FAILED") || strings.Contains(string(log), "2. ") {
		t.Errorf("the log is %s", log)
	}
}

func TestPacksAreFullAndTheSameEveryTime(t *testing.T) {
	for _, tokens := range []int{1, 8192, 65536} {
		sum := 0
		for _, n := range lengths(tokens) {
			sum += n
		}
		if sum != tokens {
			t.Errorf("the sequences of %d tokens have %d", tokens, sum)
		}
		if diff := cmp.Diff(lengths(tokens), lengths(tokens)); diff != "" {
			t.Error(diff)
		}
	}
}

// One sequence of the 7B shape: 6 N T and, for attention, 6 T² D L of the 12 T² D L that a square would take.
func TestWorkCountsCausalPairsOnly(t *testing.T) {
	c, err := shapes["7b"].Config()
	if err != nil {
		t.Fatal(err)
	}
	p := pack(64, 100)
	p.CuSeqlens = []int32{0, 64}
	targets := 0
	for _, l := range p.Labels {
		if l >= 0 {
			targets++
		}
	}
	want := 6*64*32*(4*4096*4096+3*4096*11008.) + 6*float64(targets)*4096*32000 + 6*64*64*4096*32
	if got := work(c, p); math.Abs(got-want) > 1e-9*want {
		t.Errorf("work is %g, want %g", got, want)
	}
}

func TestBadUseIsExplained(t *testing.T) {
	for _, args := range [][]string{nil, {"fly"}, {"step", "-shape", "70b"}, {"step", "-device", "host", "-shape", "tiny", "-options", "{"}} {
		if err := run(context.Background(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("bench %v succeeds", args)
		}
	}
}

// A pattern in which a test's name is misspelt, or whose test was renamed, would show nothing on the one day with a card.
func TestEveryTestOfADayExists(t *testing.T) {
	files, err := filepath.Glob("../*_test.go")
	if err != nil || len(files) == 0 {
		t.Skip("the sources are not here")
	}
	var tests []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllStringSubmatch(string(text), -1) {
			tests = append(tests, m[1])
		}
	}
	for _, pattern := range []string{testsOfTheSuite, testsOfParity, testsOfTheCertificate, testsOfResuming, testsOfKernels, testsOfThePlan} {
		for _, name := range strings.Split(strings.Trim(pattern, "^()$"), "|") {
			if !slices.Contains(tests, name) {
				t.Errorf("there is no test %s (of %s)", name, pattern)
			}
		}
	}
	for _, inner := range []string{"norm", "attention", "cross"} { // the sanitizer's, which the shared suite names
		text, err := os.ReadFile("../../devicetest/suite.go")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `t.Run("`+inner) || !strings.Contains(testsOfMemory, inner) {
			t.Errorf("the shared suite has no part %s", inner)
		}
	}
}

func TestAPartThatShowsNothingFails(t *testing.T) {
	for name, c := range map[string]struct{ output, want string }{
		"no test matched":                   {"testing: warning: no tests to run\nPASS\n", "FAILED: no test ran"},
		"nothing at all":                    {"", "FAILED: no test ran"},
		"the test was skipped":              {"--- SKIP: TestCard (0.00s)\n    no card\nPASS\n", "FAILED: all that it is made of was skipped"},
		"each of its subtests was skipped":  {"--- PASS: TestA (0.00s)\n    --- SKIP: TestA/x (0.00s)\nPASS\n", "FAILED: all that it is made of was skipped"},
		"some were skipped":                 {"--- PASS: TestA (0.00s)\n    --- SKIP: TestA/x (0.00s)\n    --- PASS: TestA/y (0.00s)\nPASS\n", "passed, 1 tests, 1 skipped"},
		"all ran":                           {"--- PASS: TestA (0.00s)\n--- PASS: TestB (0.10s)\nPASS\n", "passed, 2 tests"},
		"a name that begins like another's": {"--- PASS: TestA (0.00s)\n--- SKIP: TestAB (0.00s)\nPASS\n", "passed, 1 tests, 1 skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "cuda.test")
			if err := os.WriteFile(program, []byte("#!/bin/sh\nprintf '%s' '"+c.output+"'\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			ok := part{"part", time.Minute, []string{program, "-test.v", "-test.run", "^Test$"}, ""}.run(context.Background(), &out)
			if !strings.Contains(out.String(), "\n   part: "+c.want+" (") || ok == strings.HasPrefix(c.want, "FAILED") {
				t.Errorf("%v, %s", ok, out.String())
			}
		})
	}
}

func TestTheFastModeOfADeviceNameAndOfAFlagAreOne(t *testing.T) {
	for s, want := range map[settings]string{
		{device: "cuda"}:                          "cuda",
		{device: "cuda", fast: true}:              "cuda:,fast",
		{device: "cuda:1", fast: true}:            "cuda:1,fast",
		{device: "cuda:0,fast"}:                   "cuda:0,fast",
		{device: "cuda:0,plain,fast", fast: true}: "cuda:0,plain,fast",
		{device: "host", fast: true}:              "host",
	} {
		if got := s.deviceName(); got != want {
			t.Errorf("%+v opens %q, want %q", s, got, want)
		}
	}
}

// onSight makes a file when it sees a text.
type onSight struct{ text, file string }

func (w onSight) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.text) {
		return len(b), os.WriteFile(w.file, nil, 0o644)
	}
	return len(b), nil
}

func TestWhatAPartPrintsIsKeptAsItComes(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	waits := "echo early; until [ -e " + seen + " ]; do sleep 0.02; done"
	if !(part{"part", 20 * time.Second, []string{"/bin/sh", "-c", waits}, ""}).run(t.Context(), onSight{"early", seen}) {
		t.Error("the part's output came only at its end")
	}
}

func TestADayRefusesStepsThatAreNot(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, flags := range [][]string{{"-from", "8"}, {"-from", "0"}, {"-only", "9"}} {
		if err := run(t.Context(), append([]string{"day"}, flags...), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "steps are 1 to 7") {
			t.Errorf("%v: %v", flags, err)
		}
	}
}
