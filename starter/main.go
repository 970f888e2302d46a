// Command starter is LongAlign's command line: it starts and follows runs, reads results from the
// artifact store, and gives local access to the parts (tokenize, plan, train, generate, score …).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/workflows"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitIncomplete  = 3
	exitInterrupted = 130
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitCode(ctx, err)
	if code == exitInterrupted && err.Error() == context.Canceled.Error() {
		err = errors.New("interrupted")
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(stderr, "starter:", text)
	}
	return code
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "starter",
		Short: "Reproducible long-context alignment of language models",
		Long: `starter runs the LongAlign recipe: long instruction data, batches, training with exact loss
weighting, evaluation, tables. A run is described by one YAML file, survives the loss of
machines, and is never computed twice.`,
		Example: `  starter run --embedded starter/examples/demo.yaml     everything on this machine
  starter run study.yaml --detach                       on the Temporal and the store of the environment
  starter status demo-3f2a91c07d1b                      how far it is
  starter report demo-3f2a91c07d1b --format markdown    its tables, from the store alone`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.AddGroup(&cobra.Group{ID: "runs", Title: "Runs:"}, &cobra.Group{ID: "store", Title: "Results, from the store alone:"}, &cobra.Group{ID: "local", Title: "Local, no server:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			c.Args = asUsage(c.Args)
			root.AddCommand(c)
		}
	}
	add("runs", newRunCommand(), newDevCommand(), newDoctorCommand(), newStatusCommand(), newCancelCommand(), newResumeCommand())
	add("store", newListCommand(), newExplainCommand(), newReportCommand(), newGetCommand(), newVerifyCommand(), newExportCommand(), newLineageCommand(), newImportCommand(), newGCCommand(), newFetchCommand())
	add("local", newPromptsCommand(), newTokenizeCommand(), newPlanCommand(), newScoreCommand(), newTrainCommand(), newGenerateCommand(), newServeCommand(), newBenchCommand(), newCorrelateCommand(), newVersionCommand())
	return root
}

// usageError is a command line or a configuration that cannot work: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// incompleteError is a run that finished with cells missing: exit code 3.
type incompleteError struct{ error }

func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		return nil
	}
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{fmt.Errorf("%w; usage: %s", err, c.UseLine())}
		}
		return nil
	}
}

// wrongUse tells cobra's own complaints, which have no type, by how they begin.
func wrongUse(err error) bool {
	return slices.ContainsFunc([]string{"unknown command ", "required flag(s) ", "if any flags in the group "}, func(begin string) bool {
		return strings.HasPrefix(err.Error(), begin)
	})
}

func exitCode(ctx context.Context, err error) int {
	var usage usageError
	var spec *workflows.SpecError
	var incomplete incompleteError
	switch {
	case errors.As(err, &usage), errors.As(err, &spec), wrongUse(err):
		return exitUsage
	case errors.As(err, &incomplete):
		return exitIncomplete
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFailed
}
