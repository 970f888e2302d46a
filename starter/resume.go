package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/workflows"
)

func newResumeCommand() *cobra.Command {
	var t temporalCommand
	var detach bool
	c := &cobra.Command{
		Use:   "resume ID",
		Short: "Start a failed or cancelled run again from where it ended",
		Long: `resume starts the same run again. Finished stages are found in the store, an unfinished training goes on from
its last checkpoint. Mend the cause of the failure first.`,
		Example: "  starter resume demo-3f2a91c07d1b",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), c.ErrOrStderr(), func(temporal client.Client) error {
				store, err := t.connection.OpenStore(c.Context())
				if err != nil {
					return err
				}
				record, err := store.Run(c.Context(), args[0])
				if err != nil {
					return err
				}
				spec, err := workflows.RecordedSpec(record.Spec)
				if err != nil {
					return fmt.Errorf("run %s: its record was made by another version: %w; start it from its file instead", args[0], err)
				}
				if err := awaitCancelled(c.Context(), temporal, args[0], c.ErrOrStderr()); err != nil {
					return err
				}
				o := runOptions{connection: t.connection, embedded: t.embedded, json: t.json, detach: detach}
				return o.start(c.Context(), spec, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&detach, "detach", false, "do not wait for the run's end")
	return c
}

// awaitCancelled waits for a run that was asked to stop and still saves: attached to, it would only be seen to stop.
func awaitCancelled(ctx context.Context, temporal client.Client, id string, stderr io.Writer) error {
	d, err := temporal.DescribeWorkflowExecution(ctx, id, "")
	if errors.As(err, new(*serviceerror.NotFound)) {
		return nil // its history has passed
	}
	if err != nil {
		return err
	}
	if d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING || !d.GetWorkflowExtendedInfo().GetCancelRequested() {
		return nil
	}
	fmt.Fprintf(stderr, "waiting for %s, which was asked to stop and saves\n", id)
	// How it ends is nothing to whoever starts it again.
	_ = temporal.GetWorkflow(ctx, id, d.GetWorkflowExecutionInfo().GetExecution().GetRunId()).Get(ctx, nil)
	return ctx.Err()
}
