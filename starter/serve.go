package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/serve"
	"github.com/longalign/longalign-go/gpu/train"
)

// serveTokenVariable holds the bearer token, which does not belong on a command line.
const serveTokenVariable = "LONGALIGN_SERVE_TOKEN"

type serveFlags struct {
	model, addr, device, dtype, template string
	cacheMiB                             int64
	o                                    serve.Options
}

// newServeCommand answers OpenAI-compatible requests from one model.
func newServeCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve --model DIR --addr HOST:PORT",
		Short: "Serve a model to OpenAI-compatible clients",
		Long: `Serve answers /v1/chat/completions, /v1/completions (with echo and logprobs, so that
evaluation harnesses can read log-likelihoods) and /v1/models until it is interrupted. It is a small, correct server;
heavy traffic is better served by others through the same interface.

On an address other than loopback it asks for the bearer token in ` + serveTokenVariable + `.`,
		Example: `  starter serve --model trained --addr 127.0.0.1:8000
  LONGALIGN_SERVE_TOKEN=… starter serve --model trained --addr 0.0.0.0:8000 --template llama3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServe(cmd.Context(), cmd.ErrOrStderr(), f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "model directory")
	fl.StringVar(&f.addr, "addr", "127.0.0.1:8000", "address to listen on; port 0 takes a free one")
	fl.StringVar(&f.o.Name, "name", "", "model name in requests; the directory's name if not given")
	fl.StringVar(&f.template, "template", "longalign", "chat template: "+strings.Join(chat.Names(), ", ")+"; none refuses chats")
	fl.StringVar(&f.device, "device", "auto", "auto, host or cuda[:N]")
	fl.StringVar(&f.dtype, "dtype", "f32", "type of computation: f32, f64 or bf16")
	fl.IntVar(&f.o.Slots, "slots", 4, "sequences decoded together")
	fl.IntVar(&f.o.Queue, "queue", 64, "sequences that may wait; more are refused with 429")
	fl.DurationVar(&f.o.Timeout, "timeout", 10*time.Minute, "longest time for a request")
	fl.Int64Var(&f.cacheMiB, "cache-mib", 0, "memory for keys and values; 0: a quarter of the device's")
	fl.BoolVar(&f.o.TruncateMiddle, "truncate-middle", false, "cut the middle out of prompts that are too long, instead of refusing them; echoed prompts are refused")
	if err := cmd.MarkFlagRequired("model"); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

func runServe(ctx context.Context, stderr io.Writer, f serveFlags) error {
	dtype, err := train.ParseDType(f.dtype)
	if err != nil {
		return usageError{fmt.Errorf("--dtype: %w", err)}
	}
	if f.o.Slots < 1 || f.o.Queue < 1 || f.o.Timeout <= 0 || f.cacheMiB < 0 {
		return usageError{errors.New("serve: --slots, --queue and --timeout must be positive")}
	}
	f.o.Token = os.Getenv(serveTokenVariable)
	if err := checkExposure(f.addr, f.o.Token); err != nil {
		return usageError{err}
	}
	f.o.CacheBytes = f.cacheMiB << 20
	if f.template != "none" {
		if f.o.Template, err = chat.Lookup(f.template); err != nil {
			return usageError{err}
		}
	}
	if f.o.Name == "" {
		dir, err := filepath.Abs(f.model)
		if err != nil {
			return err
		}
		f.o.Name = filepath.Base(dir)
	}
	tok, err := tokenizer.Load(f.model)
	if err != nil {
		return err
	}
	dev, err := devices.Open(ctx, f.device)
	if err != nil {
		return err
	}
	defer dev.Close()
	m, err := llama.Load(f.model, dev, dtype)
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := serve.New(m, tok, f.o)
	if err != nil {
		return err
	}
	defer s.Close()
	listener, err := net.Listen("tcp", f.addr)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(stderr, "serve: %s (%d parameters, context %d) on http://%s/v1\n", f.o.Name, m.NumParams(), m.Config().MaxPositions, listener.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Requests in flight get a moment, then the engine ends them.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return errors.Join(server.Close(), ctx.Err())
	}
	return nil
}

// checkExposure refuses to serve strangers without a token.
func checkExposure(addr, token string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--addr: %w; write HOST:PORT", err)
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() || token != "" {
		return nil
	}
	return fmt.Errorf("--addr %s can be reached from elsewhere; set %s to the bearer token that clients must send, or listen on 127.0.0.1", addr, serveTokenVariable)
}
