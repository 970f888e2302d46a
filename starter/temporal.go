package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// temporalCommand is a command about a run that Temporal knows.
type temporalCommand struct {
	connection activities.Connection
	embedded   embedded
	json       bool
}

func (t *temporalCommand) flags(c *cobra.Command) {
	t.connection.Flags(c.Flags())
	t.embedded.flags(c.Flags())
	c.Flags().BoolVar(&t.json, "json", false, "print JSON")
}

// with connects to Temporal: the one that is named, or the embedded one that runs on the data directory.
func (t *temporalCommand) with(ctx context.Context, stderr io.Writer, f func(client.Client) error) error {
	if err := t.embedded.point(t.connection); err != nil {
		return unreachedError{err}
	}
	temporal, err := t.connection.Dial(ctx, 3*time.Second, stderr)
	if err != nil {
		return unreachedError{err}
	}
	defer temporal.Close()
	return f(temporal)
}

// unreachedError is a Temporal that could not be asked.
type unreachedError struct{ error }

func (e unreachedError) Unwrap() error { return e.error }

// recorded says what the store's record tells of a run, for when Temporal cannot be asked.
func (t *temporalCommand) recorded(ctx context.Context, id string, why error, stdout, stderr io.Writer) error {
	s := storeCommand{connection: t.connection, embedded: t.embedded}
	var run *artifact.RunRecord
	err := s.with(ctx, stderr, func(store *artifact.Store) (err error) {
		run, err = store.Run(ctx, id)
		return err
	})
	if err != nil {
		return why // the store knows no more
	}
	if t.json {
		return printJSON(stdout, run)
	}
	fmt.Fprintf(stdout, "%s: %s, by the store's record of %s\n", run.ID, run.Status, run.Updated.Local().Format("2006-01-02 15:04:05"))
	if run.Error != nil {
		fmt.Fprintf(stdout, "%s: %s\n", run.Error.Type, run.Error.Message)
	}
	if !run.Status.Finished() {
		fmt.Fprintf(stderr, "how far it is now, only Temporal knows: %v\n", why)
	}
	return nil
}
