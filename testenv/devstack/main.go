// Command devstack runs everything LongAlign-Go needs besides its own worker in one process: a Temporal server with its
// Web UI and an S3 gateway. It is the embedded default and the server the tests use; a real Temporal and a real object
// store replace it by configuration alone.
//
// Everything it keeps lives in one directory (--dir), so that stopping it, by SIGTERM or by kill -9, and starting it
// again on the same directory loses no workflow history and no acknowledged object:
//
//	temporal.db       histories, in SQLite
//	s3/               objects, one file each (metadata/ beside it where the filesystem has no extended attributes)
//	credentials.json  the gateway's generated key pair, mode 0600
//	endpoint.json     the readiness line again, while it runs; what is left behind by a crash says that it crashed
//	ports.json        the ports used last, asked for again at the next start so that clients find it
//	devstack.log      what the servers log
//	lock, users.lock  one devstack a directory; who uses a lingering one
//
// When all three servers answer it prints one JSON line on standard output (see endpoint). Notices for people go to
// standard error. It ends on SIGTERM or SIGINT, and when its standard input closes, so that a parent that dies in any
// way takes it along.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	region       = "us-east-1"
	readyTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// options are the command line.
type options struct {
	dir       string
	namespace string
	bucket    string
	logLevel  string
	ports     ports
	fixed     map[string]bool // flags given explicitly
	headless  bool
	detached  bool
	linger    time.Duration
	version   bool
}

// usageError is a wrong command line, exit code 2.
type usageError struct{ error }

func main() {
	stderr := os.Stderr // run gives the libraries inside another one
	err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, stderr)
	var usage usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "devstack: %v\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(stderr, "devstack: %v\n", err)
		os.Exit(1)
	}
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{fixed: map[string]bool{}}
	fs := flag.NewFlagSet("devstack", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.dir, "dir", "", "`directory` that keeps everything (created if missing; required)")
	fs.IntVar(&o.ports.Temporal, "port", 7233, "Temporal gRPC `port`; 0: any free one")
	fs.IntVar(&o.ports.UI, "ui-port", 8233, "Temporal Web UI `port`; 0: any free one")
	fs.IntVar(&o.ports.S3, "s3-port", 7070, "S3 `port`; 0: any free one")
	fs.BoolVar(&o.headless, "headless", false, "without the Web UI")
	fs.StringVar(&o.bucket, "bucket", "longalign", "S3 `bucket` to create")
	fs.StringVar(&o.namespace, "namespace", "default", "Temporal `namespace` to create")
	fs.StringVar(&o.logLevel, "log-level", "warn", "`level` of the servers' log: debug, info, warn or error")
	fs.BoolVar(&o.detached, "detached", false, "keep running when standard input closes")
	fs.DurationVar(&o.linger, "linger", 0, "end after this `time` in which nobody held a lock on users.lock")
	fs.BoolVar(&o.version, "version", false, "print the versions of the servers inside and exit")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, usageError{err}
	}
	fs.Visit(func(f *flag.Flag) { o.fixed[f.Name] = true })
	switch {
	case o.version:
		return o, nil
	case fs.NArg() > 0:
		return o, usageError{fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	case o.dir == "":
		return o, usageError{errors.New("--dir is required: the directory that keeps histories and objects")}
	case o.bucket == "" || o.namespace == "":
		return o, usageError{errors.New("--bucket and --namespace must not be empty")}
	}
	for name, port := range map[string]int{"port": o.ports.Temporal, "ui-port": o.ports.UI, "s3-port": o.ports.S3} {
		if port < 0 || port > 65535 {
			return o, usageError{fmt.Errorf("--%s %d: want 0 to 65535", name, port)}
		}
	}
	// The gateway changes the working directory of the process, so every path is absolute from here on.
	abs, err := filepath.Abs(o.dir)
	if err != nil {
		return o, fmt.Errorf("--dir %s: %w", o.dir, err)
	}
	o.dir = abs
	return o, nil
}

func run(ctx context.Context, args []string, stdin, stdout, stderr *os.File) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if o.version {
		return printVersions(stdout)
	}

	data, err := openDataDir(o.dir)
	if err != nil {
		return err
	}
	defer data.close()
	// The libraries inside print to standard output and standard error as they like. Standard output is ours alone: it
	// carries the readiness line. A crash's stack goes to the log as well.
	os.Stdout, os.Stderr = data.log, data.log
	log := slog.New(slog.NewTextHandler(data.log, nil))
	if err := debug.SetCrashOutput(data.log, debug.CrashOptions{}); err != nil {
		log.Warn("crashes will not be logged", "error", err)
	}
	defer func() {
		if err != nil {
			log.Error("devstack ends", "error", err)
		}
	}()
	// A parent that died is noticed on standard input; a notice it can no longer read must not kill us before that.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)

	creds, err := data.credentials()
	if err != nil {
		return err
	}
	chosen, err := choosePorts(o, data.lastPorts(), stderr)
	if err != nil {
		return err
	}

	gw, err := startGateway(ctx, data, gatewayConfig{port: chosen.S3, bucket: o.bucket, credentials: creds}, log)
	if err != nil {
		return err
	}
	defer gw.stop()
	srv, err := startTemporal(ctx, temporalConfig{
		db: data.path("temporal.db"), log: data.path("devstack.log"), logLevel: o.logLevel,
		namespace: o.namespace, port: chosen.Temporal, uiPort: chosen.UI, headless: o.headless,
	})
	if err != nil {
		return err
	}
	defer srv.stop()

	ready, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready within %v", readyTimeout))
	defer cancel()
	if err := errors.Join(gw.ready(ready), srv.ready(ready)); err != nil {
		if ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
			return nil // told to stop before we were ready
		}
		return fmt.Errorf("%w; see %s", err, data.path("devstack.log"))
	}
	if err := data.announce(endpointFor(o, data, chosen), chosen, stdout); err != nil {
		return err
	}
	log.Info("devstack is ready", "temporal", chosen.Temporal, "ui", chosen.UI, "s3", chosen.S3)

	if !o.detached {
		go endWithStdin(stdin, end)
	}
	if o.linger > 0 {
		go endWhenUnused(ctx, data.path("users.lock"), o.linger, end)
	}
	select {
	case <-ctx.Done():
	case err := <-gw.failed:
		return fmt.Errorf("the S3 gateway ended: %w; see %s", err, data.path("devstack.log"))
	}
	log.Info("devstack stops", "why", context.Cause(ctx))
	// A second signal, or a server that does not stop, must not leave a process behind. Nothing is lost by ending
	// abruptly: both servers survive kill -9.
	stop()
	time.AfterFunc(stopTimeout, func() {
		fmt.Fprintf(stderr, "devstack: did not stop within %v, ending now\n", stopTimeout)
		os.Exit(1)
	})
	return data.withdraw()
}

// printVersions names the servers inside; they change what a history or a bug report means.
func printVersions(w io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this binary has no build information")
	}
	fmt.Fprintf(w, "devstack %s/%s %s\n", runtime.GOOS, runtime.GOARCH, info.GoVersion)
	for _, want := range []struct{ name, module string }{
		{"temporal server", "go.temporal.io/server"},
		{"temporal web ui", "github.com/temporalio/ui-server/v2"},
		{"s3 gateway (versitygw)", "github.com/versity/versitygw"},
	} {
		for _, dep := range info.Deps {
			if dep.Path == want.module {
				fmt.Fprintf(w, "%s %s\n", want.name, dep.Version)
			}
		}
	}
	return nil
}
