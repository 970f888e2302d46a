package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/workflows"
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
				f := follower{temporal: temporal, connection: t.connection, id: args[0], out: c.ErrOrStderr()}
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
		if err := runFailure(f.id, f.temporal.GetWorkflow(ctx, f.id, "").Get(ctx, nil)); err != nil {
			fmt.Fprintln(stdout, err)
		}
	}
	return nil
}

func newCancelCommand() *cobra.Command {
	var t temporalCommand
	c := &cobra.Command{
		Use:     "cancel ID",
		Short:   "Stop a run; what it has made is kept",
		Example: "  starter cancel demo-3f2a91c07d1b",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), c.ErrOrStderr(), func(temporal client.Client) error {
				if err := temporal.CancelWorkflow(c.Context(), args[0], ""); err != nil {
					return fmt.Errorf("cancel %s: %w", args[0], err)
				}
				fmt.Fprintf(c.ErrOrStderr(), "asked %s to stop; running stages save first. starter resume %s goes on from there\n", args[0], args[0])
				return nil
			})
		},
	}
	t.flags(c)
	return c
}

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
				o := runOptions{connection: t.connection, embedded: t.embedded, json: t.json, detach: detach}
				return o.start(c.Context(), spec, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&detach, "detach", false, "do not wait for the run's end")
	return c
}
