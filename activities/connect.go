package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"

	"github.com/longalign/longalign-go/datasets/artifact"
	_ "github.com/longalign/longalign-go/datasets/artifact/s3" // s3:// stores
)

// Connection says where Temporal and the store are. Flags win over the environment; Temporal's own
// environment and configuration file are read as its SDK does.
type Connection struct {
	Address, Namespace, Profile string
	Store                       string
}

// Flags adds --address, --namespace, --profile and --store.
func (c *Connection) Flags(f *pflag.FlagSet) {
	c.TemporalFlags(f)
	c.StoreFlag(f)
}

// TemporalFlags adds the flags that say where Temporal is.
func (c *Connection) TemporalFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Address, "address", "", "Temporal frontend, host:port (default: TEMPORAL_ADDRESS, Temporal's configuration file, the embedded one)")
	f.StringVar(&c.Namespace, "namespace", "", "Temporal namespace (default: TEMPORAL_NAMESPACE or default)")
	f.StringVar(&c.Profile, "profile", "", "profile of Temporal's configuration file (default: TEMPORAL_PROFILE)")
}

// StoreFlag adds --store.
func (c *Connection) StoreFlag(f *pflag.FlagSet) {
	f.StringVar(&c.Store, "store", "", "artifact store, file:///dir or s3://bucket/prefix (default: LONGALIGN_STORE, the embedded one)")
}

// OpenStore opens the artifact store.
func (c Connection) OpenStore(ctx context.Context) (*artifact.Store, error) {
	uri := c.Store
	if uri == "" {
		uri = os.Getenv("LONGALIGN_STORE")
	}
	if uri == "" {
		return nil, errors.New("no artifact store is given: set --store or LONGALIGN_STORE to s3://bucket/prefix or file:///dir, or start the embedded one with starter dev")
	}
	return artifact.Open(ctx, uri)
}

// TemporalNamespace is the namespace that Dial uses.
func (c Connection) TemporalNamespace() (string, error) {
	if c.Namespace != "" {
		return c.Namespace, nil
	}
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{ConfigFileProfile: c.Profile})
	if err != nil {
		return "", fmt.Errorf("configuration of Temporal: %w", err)
	}
	if options.Namespace == "" {
		return client.DefaultNamespace, nil
	}
	return options.Namespace, nil
}

// Dial connects to Temporal and waits up to patience for it to answer.
func (c Connection) Dial(ctx context.Context, patience time.Duration, logs io.Writer) (client.Client, error) {
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{ConfigFileProfile: c.Profile})
	if err != nil {
		return nil, fmt.Errorf("configuration of Temporal: %w", err)
	}
	if c.Address != "" {
		options.HostPort = c.Address
	}
	if c.Namespace != "" {
		options.Namespace = c.Namespace
	}
	if logs == nil {
		logs = io.Discard
	}
	options.Logger = log.NewStructuredLogger(slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelWarn})))
	where := options.HostPort
	if where == "" {
		where = client.DefaultHostPort
	}
	deadline := time.Now().Add(patience)
	for {
		cl, err := client.DialContext(ctx, options)
		if err == nil {
			return cl, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, fmt.Errorf("no answer from Temporal at %s: %w; start it, or the embedded one with starter dev", where, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}
