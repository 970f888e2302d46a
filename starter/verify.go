package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/workflows"
)

func newVerifyCommand() *cobra.Command {
	var s storeCommand
	var level string
	var o activities.VerifyOptions
	c := &cobra.Command{
		Use:   "verify ID",
		Short: "Hash every artifact of a run, or recompute what follows from them",
		Long: `verify checks the results of a run and everything they were made from.

  --level bytes    hashes every stored byte and checks that each result was made from the inputs it names
  --level derived  makes documents, tokens, batches, scores and table cells again from what they were made
                   from, apart from the store, and names each value that does not match

--repair makes damaged results again, as new generations beside the old ones: those that cost nothing, and with
--costly also those that take a teacher, a training or a model on a device. A repair that comes out different is not used.

Exit code 0: everything matches or has been repaired. 1: something does not.`,
		Example: `  starter verify demo-3f2a91c07d1b
  starter verify demo-3f2a91c07d1b --level derived
  starter verify demo-3f2a91c07d1b --repair`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch level {
			case "bytes":
			case "derived":
				o.Derived = true
			default:
				return usageError{fmt.Errorf("--level %q is not known; use bytes or derived", level)}
			}
			if o.Costly && !o.Repair {
				return usageError{errors.New("--costly says how far --repair may go; give both")}
			}
			return s.with(c.Context(), c.ErrOrStderr(), func(store *artifact.Store) error {
				return verify(c.Context(), store, args[0], o, s.json, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&level, "level", "bytes", "bytes or derived")
	c.Flags().BoolVar(&o.Repair, "repair", false, "make again what is damaged, as a new generation")
	c.Flags().BoolVar(&o.Costly, "costly", false, "with --repair: also what takes a teacher, a training or a model on a device")
	return c
}

func verify(ctx context.Context, store *artifact.Store, id string, o activities.VerifyOptions, asJSON bool, stdout, stderr io.Writer) error {
	run, err := runRecord(ctx, store, id, stderr)
	if err != nil {
		return err
	}
	a := &activities.Activities{Store: store, OpenDevice: devices.Open}
	status := newStatusLine(stderr)
	o.Progress = status.say
	o.Calls = func(ctx context.Context) (map[string]activities.Call, error) {
		return callsOf(ctx, store, run)
	}
	v, err := a.Verify(ctx, run, o)
	status.clear()
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(stdout, v); err != nil {
			return err
		}
	} else {
		printVerification(stdout, v)
	}
	if !v.Good() {
		return fmt.Errorf("run %s: %s", id, plural(unrepaired(v), "finding"))
	}
	return nil
}

// callsOf returns the calls that a run's specification leads to, by action key.
func callsOf(ctx context.Context, store *artifact.Store, run *artifact.RunRecord) (map[string]activities.Call, error) {
	spec, err := workflows.RecordedSpec(run.Spec)
	if err != nil {
		return nil, fmt.Errorf("the run's record was made by another version: %w", err)
	}
	return workflows.Calls(ctx, spec, &activities.Activities{Store: store, OpenDevice: devices.Open})
}

func unrepaired(v *activities.Verification) int {
	n := 0
	for _, f := range v.Findings {
		if f.Repaired == nil {
			n++
		}
	}
	return n
}

func printVerification(w io.Writer, v *activities.Verification) {
	for _, f := range v.Findings {
		what := f.Ref.String()
		if f.Output != "" {
			what += ", " + f.Output
		}
		if len(f.Cells) > 0 {
			what += " (" + cellsLabel(f.Cells, nil) + ")"
		}
		verdict := "BAD     "
		if f.Repaired != nil {
			verdict = "repaired"
		}
		fmt.Fprintf(w, "%s  %s\n          %s\n", verdict, what, f.Problem)
		for _, d := range f.Differences[:min(len(f.Differences), 20)] {
			fmt.Fprintf(w, "            %s\n", d)
		}
		if n := len(f.Differences) - 20; n > 0 {
			fmt.Fprintf(w, "            and %d more; --json lists all\n", n)
		}
		switch {
		case f.Repaired != nil:
			fmt.Fprintf(w, "          %s: %s\n", f.Repair, f.Repaired)
		case f.Repair != "":
			fmt.Fprintf(w, "          %s\n", f.Repair)
		}
	}
	for _, f := range v.Unchecked {
		fmt.Fprintf(w, "skipped   %s: %s\n", f.Ref, f.Problem)
	}
	if v.Level == "bytes" {
		fmt.Fprintf(w, "%s: %s, %s, %s hashed; %s\n", v.Run, plural(v.Manifests, "result"), plural(v.Blobs, "blob"), size(v.Bytes), findings(v))
		return
	}
	fmt.Fprintf(w, "%s: %d of %s recomputed; %s\n", v.Run, v.Recomputed, plural(v.Manifests, "result"), findings(v))
}

func findings(v *activities.Verification) string {
	bad := unrepaired(v)
	switch repaired := len(v.Findings) - bad; {
	case len(v.Findings) == 0:
		return "all match"
	case bad == 0:
		return fmt.Sprintf("%d repaired, nothing else to find", repaired)
	case repaired == 0:
		return fmt.Sprintf("%d do not match", bad)
	default:
		return fmt.Sprintf("%d do not match, %d repaired", bad, repaired)
	}
}

// plural is "1 blob", "2 blobs".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n), -1
	for ; v >= unit; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}

// statusLine is one line on a terminal that is written over; elsewhere it is silent.
type statusLine struct {
	w     io.Writer
	width int
}

func newStatusLine(w io.Writer) *statusLine {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = io.Discard
	}
	return &statusLine{w: w}
}

func (l *statusLine) say(text string) {
	fmt.Fprintf(l.w, "\r%s%s", text, strings.Repeat(" ", max(0, l.width-len(text))))
	l.width = len(text)
}

func (l *statusLine) clear() {
	l.say("")
	fmt.Fprint(l.w, "\r")
}
