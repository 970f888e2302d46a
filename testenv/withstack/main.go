// Command withstack runs a command with a devstack of its own: it builds devstack if needed, starts it in a temporary
// directory, exports its endpoint to the tests, runs the command and stops it.
//
//	go run ./testenv/withstack -- go test ./...
//
// The exit code is the command's; 125 if devstack could not be had.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/longalign/longalign-go/testenv"
)

const exitNoStack = 125

func main() {
	code, err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "withstack: %v\n", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	flags := flag.NewFlagSet("withstack", flag.ContinueOnError)
	flags.SetOutput(stderr)
	bin := flags.String("bin", filepath.Join("bin", "devstack"), "devstack `binary`, built if it is not of the present sources")
	if err := flags.Parse(args); err != nil {
		return 2, nil // flag has said why
	}
	if flags.NArg() == 0 {
		return 2, errors.New("no command: withstack [--bin FILE] -- COMMAND [ARGUMENT...]")
	}
	// The terminal's Ctrl-C reaches the command as well; it decides, and devstack is stopped after it.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	path, err := filepath.Abs(*bin)
	if err != nil {
		return exitNoStack, err
	}
	if err := testenv.Build(ctx, path, stderr); err != nil {
		return exitNoStack, err
	}
	dir, err := os.MkdirTemp("", "devstack-")
	if err != nil {
		return exitNoStack, err
	}
	defer os.RemoveAll(dir)
	stack, err := testenv.Start(ctx, testenv.Options{Bin: path, Dir: dir, AnyPorts: true, Notices: stderr})
	if err != nil {
		return exitNoStack, err
	}
	code, err := runCommand(ctx, flags.Args(), path, stack, stdout, stderr)
	return code, errors.Join(err, stack.Stop())
}

func runCommand(ctx context.Context, args []string, bin string, stack *testenv.Stack, stdout, stderr io.Writer) (int, error) {
	endpoint, err := json.Marshal(stack.Endpoint())
	if err != nil {
		return exitNoStack, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), testenv.EndpointVariable+"="+string(endpoint), testenv.BinVariable+"="+bin)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode(), nil
	default: // not started, or ended by a signal
		return 1, fmt.Errorf("%s: %w", args[0], err)
	}
}
