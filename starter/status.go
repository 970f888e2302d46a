package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
)

func newStatusCommand() *cobra.Command {
	var t temporalCommand
	var follow bool
	c := &cobra.Command{
		Use:   "status ID",
		Short: "Say how far a run is, and what it waits for",
		Example: `  starter status demo-3f2a91c07d1b
  starter status --follow demo-3f2a91c07d1b`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := t.with(c.Context(), c.ErrOrStderr(), func(temporal client.Client) error {
				f := follower{temporal: temporal, connection: t.connection, id: args[0], flag: t.embedded.flag(), out: c.ErrOrStderr()}
				if !follow {
					return status(c.Context(), f, t.json, c.OutOrStdout())
				}
				result, err := f.follow(c.Context())
				if err != nil {
					return err
				}
				o := runOptions{connection: t.connection, embedded: t.embedded, json: t.json}
				return o.finish(c.Context(), args[0], result, c.OutOrStdout(), c.ErrOrStderr())
			})
			var unreached unreachedError
			if errors.As(err, &unreached) && !follow {
				return t.recorded(c.Context(), args[0], unreached.error, c.OutOrStdout(), c.ErrOrStderr())
			}
			return err
		},
	}
	t.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "stay until the run ends, then print its tables")
	return c
}

func status(ctx context.Context, f follower, asJSON bool, stdout io.Writer) error {
	d, err := f.temporal.DescribeWorkflowExecution(ctx, f.id, "")
	if err != nil {
		return fmt.Errorf("run %s: %w; starter list shows the runs of the store", f.id, err)
	}
	state := d.GetWorkflowExecutionInfo().GetStatus()
	v, lookErr := f.look(ctx)
	if asJSON {
		out := map[string]any{"id": f.id, "status": strings.ToLower(state.String()), "progress": v.progress, "waits": v.waits}
		if lookErr != nil {
			out["waits"] = append(v.waits, lookErr.Error())
		}
		return printJSON(stdout, out)
	}
	fmt.Fprintf(stdout, "%s: %s\n", f.id, strings.ToLower(state.String()))
	if lookErr != nil {
		fmt.Fprintln(stdout, "waiting:", lookErr)
		return nil
	}
	fmt.Fprintf(stdout, "%d of %d cells finished\n", v.progress.CellsDone, v.progress.Cells)
	for _, s := range v.progress.Stages {
		if s.Made+s.Reused > 0 {
			fmt.Fprintf(stdout, "  %-13s %s\n", s.Stage, counts(s))
		}
	}
	for _, r := range v.progress.Running {
		text := "in the queue"
		if live, ok := v.live[r.WorkflowID]; ok && live.Progress.String() != "" {
			text = live.Progress.String()
			if live.attempt > 1 {
				text += fmt.Sprintf(" (attempt %d: %s)", live.attempt, firstLine(live.failure))
			}
		} else if r.Waiting {
			text = "another run makes it"
		}
		fmt.Fprintf(stdout, "  %-13s %s: %s\n", r.Stage, r.Label, text)
	}
	for _, w := range v.waits {
		fmt.Fprintln(stdout, "waiting:", w)
	}
	if state == enumspb.WORKFLOW_EXECUTION_STATUS_FAILED {
		if err := f.failure(ctx, f.temporal.GetWorkflow(ctx, f.id, "").Get(ctx, nil)); err != nil {
			fmt.Fprintln(stdout, err)
		}
	}
	return nil
}
