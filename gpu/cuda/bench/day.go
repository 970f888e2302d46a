package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/gpu/cuda"
	"github.com/longalign/longalign-go/gpu/devices"
)

// part is one thing that a day with a card has to show: a command with its limit.
type part struct {
	name    string
	limit   time.Duration
	command []string
	needs   string // a program without which it is not run
}

// The tests in gpu/cuda that a day runs, by name. A part whose pattern meets no test fails (see part.run).
const (
	testsOfTheSuite       = "^TestCardPassesTheSuite$"
	testsOfParity         = "^(TestTrainingFollowsTheHost|TestBFloat16FollowsFloat32For100Steps)$"
	testsOfTheCertificate = "^TestTheLossDoesNotDependOnTheLayoutOnTheDevice$"
	testsOfResuming       = "^(TestResumingOnTheDeviceGivesTheSameBits|TestAKilledTrainingOnTheDeviceEndsWithTheSameBits)$"
	testsOfKernels        = "^(TestMatrixAttentionMatchesTheHost|TestMatrixAttentionToACacheMatchesTheHost|TestMixedTypesMatchTheHost|TestSchedulingDoesNotShow)$"
	testsOfThePlan        = "^TestThePlanIsWhatTheDeviceAllocates$"
	testsOfMemory         = "^TestCardPassesTheSuite$/.*/(norm|attention|cross)|^TestMatrixAttention"
)

// day runs everything that only a card can show, the most important first: a card may be at hand for minutes only. Each part is a
// process of its own, so that none takes the rest along; the log says passed, failed or not run for each.
func day(ctx context.Context, s settings) error {
	if s.from < 1 || s.from > 7 || s.only < 0 || s.only > 7 {
		return fmt.Errorf("steps are 1 to 7, not -from %d -only %d", s.from, s.only)
	}
	if s.budget > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.budget)
		defer cancel()
	}
	log, err := os.OpenFile(s.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	out := io.MultiWriter(s.out, log)
	fmt.Fprintf(out, "Seven steps with a card, %s; %s keeps this.\n\n1. device and libraries\n", time.Now().UTC().Format(time.RFC3339), s.log)
	d, err := devices.Open(ctx, s.device)
	var e *cuda.Error
	failed := 0
	switch {
	case errors.As(err, &e) && e.Kind == cuda.TrialFailed:
		// This process has lost the card, its parts have not: they go on with the kernels of every card.
		fmt.Fprintf(out, "   FAILED: %v\n   goes on with LONGALIGN_CUDA_ATTENTION=mma\n", err)
		os.Setenv("LONGALIGN_CUDA_ATTENTION", "mma")
		failed++
	case err != nil:
		fmt.Fprintf(out, "   FAILED: %v\n", err)
		return fmt.Errorf("step 1: there is no device to go on with: %w", err)
	default:
		i := d.Info()
		fmt.Fprintf(out, "   %s, %s, %s, %.1f GiB usable\n", i.Name, i.Class, i.Driver, float64(i.Memory)/(1<<30))
		d.Close()
	}

	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Dir(self)
	test := func(pattern string) []string {
		return []string{filepath.Join(dir, "cuda.test"), "-test.v", "-test.run", pattern}
	}
	truth := func(name string, limit time.Duration, pattern string) part {
		return part{name, limit, test(pattern), ""}
	}
	me := func(args ...string) []string { return append([]string{self}, args...) }
	rival := func(shape, tokens string) []string {
		return []string{"python3", filepath.Join(dir, "rival.py"), "--shape", shape, "--tokens", tokens}
	}
	sanitizer := func(tool, pattern string) []string {
		return append([]string{"compute-sanitizer", "--tool", tool, "--error-exitcode", "9"}, test(pattern)...)
	}
	steps := []struct {
		title string
		parts []part
	}{
		{"1. device suite", []part{{"the shared suite", 5 * time.Minute, test(testsOfTheSuite), ""}}},
		{"2. training parity with the host, resume", []part{
			truth("losses of the host, in float32 and bfloat16", 2*time.Minute, testsOfParity),
			truth("the loss-parity certificate", time.Minute, testsOfTheCertificate),
			truth("resuming with the same bits", 2*time.Minute, testsOfResuming),
			truth("kernels of the matrix units against the host", 3*time.Minute, testsOfKernels),
			truth("the plan of memory", 2*time.Minute, testsOfThePlan),
		}},
		{"3. kernels against their rooflines", []part{
			{"1.3B, 8k", 2 * time.Minute, me("kernels", "-shape", "1.3b", "-tokens", "8192"), ""},
			{"7B, 16k", 3 * time.Minute, me("kernels", "-shape", "7b", "-tokens", "16384"), ""},
			{"7B, 16k, fast", 3 * time.Minute, me("kernels", "-shape", "7b", "-tokens", "16384", "-fast"), ""},
			{"PyTorch's attention, 7B, 16k", 3 * time.Minute, append(rival("7b", "16384"), "--only", "attention"), "python3"},
		}},
		{"4. the step against PyTorch", []part{
			{"1.3B, 8k", 3 * time.Minute, me("step", "-shape", "1.3b", "-tokens", "8192"), ""},
			{"1.3B, 8k, fast", 3 * time.Minute, me("step", "-shape", "1.3b", "-tokens", "8192", "-fast"), ""},
			{"1.3B, 8k, selective recomputation", 3 * time.Minute, me("step", "-shape", "1.3b", "-tokens", "8192", "-options", `{"recompute":"selective"}`), ""},
			{"1.3B, 8k, full recomputation", 3 * time.Minute, me("step", "-shape", "1.3b", "-tokens", "8192", "-options", `{"recompute":"layer"}`), ""},
			{"PyTorch, 1.3B, 8k", 4 * time.Minute, rival("1.3b", "8192"), "python3"},
			{"1.3B, 64k", 4 * time.Minute, me("step", "-shape", "1.3b", "-tokens", "65536"), ""},
			{"PyTorch, 1.3B, 64k", 4 * time.Minute, rival("1.3b", "65536"), "python3"},
			{"7B, 8k", 6 * time.Minute, me("step", "-shape", "7b", "-tokens", "8192", "-steps", "3"), ""},
			{"PyTorch, 7B, 8k", 5 * time.Minute, rival("7b", "8192"), "python3"},
			{"1.3B, 8k, a checkpoint", 5 * time.Minute, me("checkpoint", "-shape", "1.3b", "-tokens", "8192"), ""},
			{"7B, prefill of 64k and decode", 4 * time.Minute, me("decode", "-shape", "7b", "-tokens", "65000"), ""},
		}},
		{"5. 7B at 64k tokens", []part{{"one step and another", 10 * time.Minute, me("step", "-shape", "7b", "-tokens", "65536", "-steps", "2"), ""}}},
		{"6. compute-sanitizer", []part{
			{"memcheck", 5 * time.Minute, sanitizer("memcheck", testsOfMemory), "compute-sanitizer"},
			{"racecheck", 5 * time.Minute, sanitizer("racecheck", testsOfMemory), "compute-sanitizer"},
		}},
		{"7. soak", []part{{"1.3B, 8k", 8 * time.Minute, me("soak", "-shape", "1.3b", "-minutes", "5"), ""}}},
	}
	for i, step := range steps {
		if n := i + 1; n < s.from || s.only > 0 && n != s.only {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", step.title)
		for _, p := range step.parts {
			if ctx.Err() != nil {
				fmt.Fprintf(out, "   %s: not run, the time is over\n", p.name)
				continue
			}
			if !p.run(ctx, out) {
				failed++
			}
		}
	}
	fmt.Fprintf(out, "\n%d parts failed\n", failed)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the day ended early, %d parts failed; see %s: %w", failed, s.log, err)
	}
	if failed > 0 {
		return fmt.Errorf("%d parts failed; see %s", failed, s.log)
	}
	return nil
}

// run runs a part within its limit and reports whether nothing failed.
func (p part) run(ctx context.Context, out io.Writer) bool {
	for _, program := range []string{p.needs, p.command[0]} {
		if program == "" {
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintf(out, "   %s: not run, %s is not here\n", p.name, program)
			return true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Env = append(os.Environ(), "LONGALIGN_CUDA_TESTS=card")
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	fmt.Fprintf(out, "   %s:\n", p.name)
	var text bytes.Buffer
	shown := &indented{to: out}
	cmd.Stdout = io.MultiWriter(&text, shown) // as it comes: what ends this program must not lose it
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	verdict := "passed"
	switch {
	case ctx.Err() != nil:
		verdict = fmt.Sprintf("FAILED: not done within %v", p.limit)
	case err != nil:
		verdict = "FAILED: " + err.Error()
	case slices.Contains(p.command, "-test.v"):
		verdict = judge(text.String())
	}
	shown.end()
	fmt.Fprintf(out, "   %s: %s (%.0f s)\n", p.name, verdict, time.Since(began).Seconds())
	return !strings.HasPrefix(verdict, "FAILED")
}

// indented writes lines with room before them.
type indented struct {
	to   io.Writer
	open bool // a line is not ended
}

func (w *indented) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if !w.open {
			fmt.Fprint(w.to, "      ")
		}
		if _, err := w.to.Write(line); err != nil {
			return 0, err
		}
		w.open = !bytes.HasSuffix(line, []byte("\n"))
	}
	return len(b), nil
}

func (w *indented) end() {
	if w.open {
		fmt.Fprintln(w.to)
	}
}

var results = regexp.MustCompile(`(?m)^\s*--- (PASS|SKIP|FAIL): (\S+)`)

// judge says what the output of tests that ended well shows: a pattern that met no test, or tests that were all skipped, show
// nothing of the card and count as failed.
func judge(output string) string {
	all := results.FindAllStringSubmatch(output, -1)
	shown, skipped := 0, 0
	for _, m := range all {
		// A test with subtests passes even where all of those were skipped, so that only the innermost count.
		hasInner := slices.ContainsFunc(all, func(n []string) bool { return strings.HasPrefix(n[2], m[2]+"/") })
		switch {
		case m[1] == "SKIP":
			skipped++
		case m[1] == "PASS" && !hasInner:
			shown++
		}
	}
	switch {
	case shown == 0 && skipped == 0:
		return "FAILED: no test ran"
	case shown == 0:
		return "FAILED: all that it is made of was skipped"
	case skipped > 0:
		return fmt.Sprintf("passed, %d tests, %d skipped", shown, skipped)
	}
	return fmt.Sprintf("passed, %d tests", shown)
}
