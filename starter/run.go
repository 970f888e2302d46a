package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/term"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/instructions"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/workflows"
)

// runOptions are the flags of starter run.
type runOptions struct {
	connection activities.Connection
	embedded   embedded
	onlyHere   bool // --embedded
	detach     bool
	dryRun     bool
	json       bool
	sets       []string
}

func newRunCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Start the experiment or study of a YAML file, follow it, print its tables",
		Long: `run starts the experiment or study that FILE describes. Its ID is its name and a digest of what it asks
for: starting the same again attaches to the running one, and a finished one is answered from the store.

Ctrl-C detaches from a run on a remote Temporal (it goes on), and stops one on the embedded stack,
which goes on where it was when it is started again.`,
		Example: `  starter run --embedded starter/examples/demo.yaml
  starter run study.yaml --set train.learning_rate=1e-5 --set study.seeds=[1]
  starter run study.yaml --detach --address temporal:7233 --store s3://bucket/longalign
  starter run study.yaml --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), args[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.connection.Flags(c.Flags())
	o.embedded.flags(c.Flags())
	c.Flags().BoolVar(&o.onlyHere, "embedded", false, "start Temporal, its UI, a store and a worker on this machine for the run")
	c.Flags().BoolVar(&o.detach, "detach", false, "start the run, print its ID and return")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what the run would take and what would fail, without starting it")
	c.Flags().BoolVar(&o.json, "json", false, "print the result as JSON")
	c.Flags().StringArrayVar(&o.sets, "set", nil, "override a value of the file, key=value; may be repeated")
	return c
}

func (o *runOptions) run(ctx context.Context, file string, stdout, stderr io.Writer) error {
	if o.onlyHere && o.detach {
		return usageError{errors.New("--embedded --detach would stop the run as soon as it is started; use starter dev in another terminal and run without --embedded")}
	}
	spec, err := readSpec(file, o.sets)
	if err != nil {
		return err
	}
	if o.dryRun {
		return o.rehearse(ctx, spec, stdout, stderr)
	}
	stderr = &console{out: stderr} // the worker's keeper writes there too
	if o.onlyHere {
		fmt.Fprintln(stderr, "starting Temporal, its UI, a store and a worker …")
		here, err := o.embedded.start(ctx, stderr)
		if err != nil {
			return err
		}
		ep := here.stack.Endpoint()
		fmt.Fprintf(stderr, "Temporal UI %s · artifacts in %s · data in %s\n", ep.UI, os.Getenv("LONGALIGN_STORE"), o.embedded.data)
		// A stack that ends by itself ends the run here; what was made is kept.
		following, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case <-here.stack.Exited():
				cancel(fmt.Errorf("the embedded stack ended by itself; see %s. Nothing that was saved is lost. To go on: %s", filepath.Join(o.embedded.data, "devstack.log"), o.again(file)))
			case <-following.Done():
			}
		}()
		err = o.start(following, spec, stdout, stderr)
		var incomplete incompleteError
		if (err == nil || errors.As(err, &incomplete)) && following.Err() == nil && term.IsTerminal(int(os.Stdout.Fd())) {
			fmt.Fprintf(stderr, "\nThe UI stays up at %s until Ctrl-C.\n", ep.UI)
			<-following.Done()
		}
		switch {
		case ctx.Err() != nil && err != nil:
			fmt.Fprintf(stderr, "\nstopping; running stages save first. To go on: %s\n", o.again(file))
		case following.Err() != nil:
			return errors.Join(context.Cause(following), here.stop())
		}
		return errors.Join(err, here.stop())
	}
	if err := o.embedded.point(o.connection); err != nil {
		return err
	}
	return o.start(ctx, spec, stdout, stderr)
}

// again is the command line that goes on with this run.
func (o *runOptions) again(file string) string {
	c := "starter run --embedded" + o.embedded.flag() + " " + file
	for _, s := range o.sets {
		c += fmt.Sprintf(" --set '%s'", s)
	}
	return c
}

// rehearse says what the run would be. A store that is not named, or does not answer, has nothing.
func (o *runOptions) rehearse(ctx context.Context, spec workflows.Spec, stdout, stderr io.Writer) error {
	s := storeCommand{connection: o.connection, embedded: o.embedded}
	named := cmp.Or(s.connection.Store, os.Getenv("LONGALIGN_STORE"))
	dir, local := strings.CutPrefix(named, "file://")
	if named == "" {
		dir = s.embedded.data
	} else if !local {
		dir = ""
	}
	said := func(store *artifact.Store) error {
		d, err := foretell(ctx, spec, store, dir, stderr)
		if err != nil {
			return err
		}
		if o.json {
			err = printJSON(stdout, d)
		} else {
			err = d.print(stdout, spec)
		}
		if err == nil && len(d.Problems) > 0 {
			err = fmt.Errorf("the run would fail; %s to mend", plural(len(d.Problems), "thing"))
		}
		return err
	}
	err := s.with(ctx, stderr, said)
	var usage usageError
	if errors.As(err, &usage) && named == "" {
		return said(nil)
	}
	return err
}

// start starts the run, or attaches to it, and follows it.
func (o *runOptions) start(ctx context.Context, spec workflows.Spec, stdout, stderr io.Writer) error {
	temporal, err := o.connection.Dial(ctx, 30*time.Second, stderr)
	if err != nil {
		return err
	}
	defer temporal.Close()
	id, err := spec.WorkflowID()
	if err != nil {
		return err
	}
	// The run's results are read here in the end: a store that cannot be opened is told before anything is started.
	if _, err := o.connection.OpenStore(ctx); err != nil {
		return usageError{err}
	}
	run, err := temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       id,
		TaskQueue:                workflows.QueueControl,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            spec.Summary(),
		StaticDetails:            spec.Details(),
		TypedSearchAttributes:    spec.SearchAttributes(),
	}, workflows.StudyName, workflows.StudyInput{Spec: spec})
	if err != nil {
		return fmt.Errorf("start %s: %w%s", id, err, startAdvice(err))
	}
	if o.detach {
		if o.json {
			return printJSON(stdout, map[string]string{"id": id, "run_id": run.GetRunID()})
		}
		fmt.Fprintln(stdout, id)
		fmt.Fprintf(stderr, "follow it with: starter status --follow %s%s\n", id, o.embedded.flag())
		return nil
	}
	if o.onlyHere {
		tellOthers(ctx, temporal, id, stderr)
	}
	f := follower{temporal: temporal, connection: o.connection, id: id, runID: run.GetRunID(), flag: o.embedded.flag(), out: stderr}
	result, err := f.follow(ctx)
	if err != nil {
		if ctx.Err() != nil && !o.onlyHere {
			fmt.Fprintf(stderr, "\ndetached; the run goes on. Follow it with: starter status --follow %s%s\n", id, o.embedded.flag())
		}
		return err
	}
	return o.finish(ctx, id, result, stdout, stderr)
}

// tellOthers names unfinished runs of earlier days: the worker goes on with them too, and shares its device.
func tellOthers(ctx context.Context, temporal client.Client, id string, stderr io.Writer) {
	list, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running'", workflows.StudyName),
	})
	if err != nil {
		return // only the notice is lost
	}
	for _, e := range list.GetExecutions() {
		if other := e.GetExecution().GetWorkflowId(); other != id {
			fmt.Fprintf(stderr, "unfinished run %s goes on too and shares the worker; starter cancel %s stops it\n", other, other)
		}
	}
}

// finish prints the tables and where everything is.
func (o *runOptions) finish(ctx context.Context, id string, result workflows.StudyResult, stdout, stderr io.Writer) error {
	store, err := o.connection.OpenStore(ctx)
	if err != nil {
		return err
	}
	record, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	record.Tables = &result.Tables
	if o.json {
		if err := printJSON(stdout, map[string]any{"id": id, "tables": result.Tables, "failed": result.Failed}); err != nil {
			return err
		}
	} else if err := printRunTables(ctx, store, record, "", "text", stdout, stderr); err != nil && !isIncomplete(err) {
		return err
	}
	dir := filepath.Join(o.embedded.data, "reports", id)
	report, incomplete := writeRunReport(ctx, store, record, dir, nil)
	if err := incomplete; err != nil && !isIncomplete(err) {
		return fmt.Errorf("the run is finished, but its report could not be written: %w; try starter report %s --out DIR", err, id)
	}
	fmt.Fprintf(stderr, "\nrun        %s\nreport     %s\nartifacts  %s (manifest actions/%s/%s/%d.json)\nagain      starter report %s%s · starter explain %s%s\n",
		id, report, store.URI(), result.Tables.Stage, result.Tables.Key, result.Tables.Generation, id, o.embedded.flag(), id, o.embedded.flag())
	if ep, ok := o.embedded.running(); ok {
		fmt.Fprintf(stderr, "Temporal   %s/namespaces/%s/workflows/%s (while the stack runs; starter dev%s starts it)\n", ep.UI, ep.Namespace, id, o.embedded.flag())
	}
	if len(result.Failed) == 0 {
		study, err := readStudy(ctx, store, record, nil)
		if err != nil {
			return err
		}
		if cells := reports.Incomplete(study); len(cells) > 0 {
			return incompleteError{fmt.Errorf("%s of the tables lack samples and are not final: %s; starter report %[3]s%[4]s says how many, starter explain %[3]s%[4]s why", plural(len(cells), "value"), someOf(cells), id, o.embedded.flag())}
		}
	}
	if len(result.Failed) > 0 {
		return incompleteError{fmt.Errorf("%s failed, the tables are incomplete: %s", plural(len(result.Failed), "cell"), listFailures(result.Failed))}
	}
	return incomplete
}

// isIncomplete tells whether a report was made without parts of it.
func isIncomplete(err error) bool {
	var incomplete incompleteError
	return errors.As(err, &incomplete)
}

// someOf lists a few names and how many there are more.
func someOf(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, "; ")
	}
	return strings.Join(names[:most], "; ") + fmt.Sprintf("; and %d more", len(names)-most)
}

func startAdvice(err error) string {
	if strings.Contains(err.Error(), "search attribute") {
		return fmt.Sprintf("; this Temporal lacks the search attributes %s: add them as keywords (temporal operator search-attribute create), or use starter dev", strings.Join(workflows.SearchAttributes, ", "))
	}
	return ""
}

// readSpec reads an experiment file.
func readSpec(file string, sets []string) (workflows.Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return workflows.Spec{}, usageError{fmt.Errorf("experiment file: %w", err)}
	}
	spec, err := workflows.ParseSpec(file, data, sets)
	if err != nil || spec.Instructions.PromptsDir == "" {
		return spec, err
	}
	// Workers may be elsewhere: the templates travel with the experiment, and its record holds them.
	read, err := instructions.ReadPrompts(spec.Instructions.PromptsDir)
	if err != nil {
		return spec, &workflows.SpecError{File: file, Key: "instructions.prompts_dir", Reason: err.Error()}
	}
	maps.Copy(read, spec.Instructions.Prompts) // those in the file itself win
	spec.Instructions.Prompts, spec.Instructions.PromptsDir = read, ""
	return spec, nil
}
