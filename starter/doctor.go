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
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/documents"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/workflows"
)

// verdict is how a check of doctor ended.
type verdict string

const (
	works   verdict = "ok"
	warns   verdict = "warning"
	failing verdict = "failing"
)

// diagnosis is one line of doctor's report.
type diagnosis struct {
	What    string  `json:"what"`
	Verdict verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Do      string  `json:"do,omitempty"` // what to do about it
}

// doctor collects diagnoses.
type doctor struct {
	temporalCommand
	found []diagnosis
}

func (d *doctor) say(what string, v verdict, do, format string, args ...any) {
	d.found = append(d.found, diagnosis{what, v, fmt.Sprintf(format, args...), do})
}

func newDoctorCommand() *cobra.Command {
	d := &doctor{}
	c := &cobra.Command{
		Use:   "doctor [FILE]",
		Short: "Check what a run needs, and say what to do about what is missing",
		Long: `doctor looks at Temporal, its namespace and search attributes, the queues and their workers, the store and its
conditional writes, the device of this machine, disk space, and, with an experiment FILE, the paths and endpoints it names.

Exit code 0: nothing is failing. 1: something is.`,
		Example: `  starter doctor
  starter doctor study.yaml --address temporal:7233 --store s3://bucket/longalign`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.run(c.Context(), args, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	d.flags(c)
	return c
}

func (d *doctor) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var spec *workflows.Spec
	if len(args) == 1 {
		s, err := readSpec(args[0], nil)
		if err != nil {
			return err
		}
		spec = &s
	}
	if ep, ok := d.embedded.running(); ok && d.connection.Address == "" && os.Getenv("TEMPORAL_ADDRESS") == "" {
		if err := use(ep); err != nil {
			return err
		}
		d.say("embedded stack", works, "", "runs on %s (process %d, UI %s)", d.embedded.data, ep.PID, ep.UI)
	}
	d.temporal(ctx, stderr)
	if err := d.anyStore(ctx, stderr); err != nil {
		return err
	}
	d.device(ctx)
	d.disk("data directory", d.embedded.data)
	d.disk("temporary directory", os.TempDir())
	if spec != nil {
		d.files(*spec)
		d.endpoints(ctx, *spec)
	}
	bad := 0
	for _, f := range d.found {
		if f.Verdict == failing {
			bad++
		}
	}
	if d.json {
		if err := printJSON(stdout, map[string]any{"ok": bad == 0, "checks": d.found}); err != nil {
			return err
		}
	} else {
		for _, f := range d.found {
			fmt.Fprintf(stdout, "%-8s %-20s %s\n", f.Verdict, f.What, f.Detail)
			if f.Do != "" {
				fmt.Fprintf(stdout, "%-29s → %s\n", "", f.Do)
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s failing", plural(bad, "check"))
	}
	return nil
}

// temporal checks the server, its namespace, its search attributes and who serves its queues.
func (d *doctor) temporal(ctx context.Context, stderr io.Writer) {
	c, err := d.connection.Dial(ctx, 3*time.Second, stderr)
	if err != nil {
		d.say("Temporal", failing, "start it, or the embedded one with starter dev; --address says where it is", "%v", errors.Unwrap(err))
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	service := c.WorkflowService()
	if info, err := service.GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}); err != nil {
		d.say("Temporal", failing, "look at the server's log", "%v", err)
		return
	} else {
		d.say("Temporal", works, "", "server %s answers", info.GetServerVersion())
	}
	namespace, err := d.connection.TemporalNamespace()
	if err != nil {
		d.say("namespace", failing, "mend Temporal's configuration file", "%v", err)
		return
	}
	described, err := service.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		d.say("namespace", failing, "create it: temporal operator namespace create --namespace "+namespace+", or name another with --namespace", "%s: %v", namespace, err)
		return
	}
	kept := described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	d.say("namespace", works, "", "%s, keeps histories for %s", namespace, age(kept))
	d.searchAttributes(ctx, c, namespace)
	for _, q := range workflows.Queues {
		d.queue(ctx, c, q)
	}
}

func (d *doctor) searchAttributes(ctx context.Context, c client.Client, namespace string) {
	list, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		d.say("search attributes", warns, "ask who runs this Temporal", "they cannot be listed: %v", err)
		return
	}
	var missing []string
	for _, name := range workflows.SearchAttributes {
		if list.GetCustomAttributes()[name] != enumspb.INDEXED_VALUE_TYPE_KEYWORD {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		d.say("search attributes", failing, "temporal operator search-attribute create --namespace "+namespace+" --type Keyword --name "+strings.Join(missing, " --name "),
			"missing, or not keywords: %s", strings.Join(missing, ", "))
		return
	}
	d.say("search attributes", works, "", "%s", strings.Join(workflows.SearchAttributes, ", "))
}

// queue says who serves a queue. Without a worker a run waits, which is no failure of what is here.
func (d *doctor) queue(ctx context.Context, c client.Client, name string) {
	kind := enumspb.TASK_QUEUE_TYPE_ACTIVITY
	if name == workflows.QueueControl {
		kind = enumspb.TASK_QUEUE_TYPE_WORKFLOW
	}
	t, err := c.DescribeTaskQueue(ctx, name, kind)
	if err != nil {
		d.say("queue "+name, failing, "look at the server's log", "%v", err)
		return
	}
	var who []string
	for _, p := range t.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) < pollerFresh && !slices.Contains(who, p.GetIdentity()) {
			who = append(who, p.GetIdentity())
		}
	}
	if len(who) == 0 {
		d.say("queue "+name, warns, "worker --queues "+name, "no worker serves it: runs will wait for one")
		return
	}
	d.say("queue "+name, works, "", "%s: %s", plural(len(who), "worker"), strings.Join(who[:min(len(who), 4)], ", "))
}

// pollerFresh is how long ago a worker may have asked a queue for work to count as serving it: a poll lasts a minute.
const pollerFresh = 90 * time.Second

// anyStore probes the store that is named, or the embedded one, which is started for as long as that takes.
func (d *doctor) anyStore(ctx context.Context, stderr io.Writer) (err error) {
	_, running := d.embedded.running()
	_, statErr := os.Stat(filepath.Join(d.embedded.data, "credentials.json"))
	if running || statErr != nil || d.connection.Store != "" || os.Getenv("LONGALIGN_STORE") != "" {
		d.store(ctx)
		return nil
	}
	d.say("embedded stack", warns, "starter dev --data "+d.embedded.data+" starts it; run --embedded, list, report and the like do so by themselves",
		"there is one on %s, with a store; it does not run", d.embedded.data)
	stack, err := d.embedded.startStack(ctx, stderr)
	if err != nil {
		d.say("store", failing, "look into devstack.log in "+d.embedded.data, "the embedded stack does not start: %v", err)
		return nil
	}
	defer func() { err = errors.Join(err, stack.Stop()) }()
	if err := use(stack.Endpoint()); err != nil {
		return err
	}
	d.store(ctx)
	return nil
}

// store probes the store: it writes, reads and deletes a small object, and tries writes that must be refused.
func (d *doctor) store(ctx context.Context) {
	store, err := d.connection.OpenStore(ctx)
	if err != nil {
		d.say("store", failing, "set --store or LONGALIGN_STORE, or start the embedded one with starter dev", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	start := time.Now()
	if err := store.Probe(ctx); err != nil {
		d.say("store", failing, "check the address, the credentials and the rights to write, read and delete; AWS_ENDPOINT_URL names a service other than AWS", "%v", err)
		return
	}
	d.say("store", works, "", "%s: reads, writes, refuses conflicting writes (%s)", store.URI(), time.Since(start).Round(time.Millisecond))
	runs := 0
	for _, err := range store.Runs(ctx) {
		if err != nil {
			d.say("run records", warns, "starter verify ID checks a run; a damaged record of a running run is written again by the run", "%v", err)
			continue
		}
		runs++
	}
	d.say("run records", works, "", "%s", plural(runs, "run"))
	if dir, ok := strings.CutPrefix(store.URI(), "file://"); ok {
		d.disk("store's disk", dir)
	}
}

func (d *doctor) device(ctx context.Context) {
	dev, err := devices.Open(ctx, "auto")
	if err != nil {
		d.noDevice(err)
		return
	}
	defer dev.Close()
	i := dev.Info()
	detail := fmt.Sprintf("%s %s, class %s, %s of memory", i.Kind, i.Name, i.Class, size(i.Memory))
	if i.Driver != "" {
		detail += ", driver " + i.Driver
	}
	if i.Kind == "host" && cardSeen() {
		d.say("device", warns, "mend that to train on the card", "%s; this machine has an NVIDIA card, but: %v", detail, devices.Card())
		return
	}
	if i.Kind == "host" && devices.WithCards {
		detail += fmt.Sprintf("; no card: %v", devices.Card())
	}
	d.say("device", works, "", "%s", detail)
}

// noDevice says why none can be opened. A card that works for another process, a worker say, is as it should be.
func (d *doctor) noDevice(err error) {
	if activities.InUse(err) {
		d.say("device", works, "", "in use: %v", err)
		return
	}
	d.say("device", failing, "do what is said there (nvidia-smi may say more), or train on the processor with device: host", "%v", err)
}

// cardSeen tells whether the machine has an NVIDIA driver loaded.
func cardSeen() bool {
	_, err := os.Stat("/proc/driver/nvidia/version")
	return err == nil
}

// files checks the paths that an experiment names. They are read by workers, which may be on other machines.
func (d *doctor) files(spec workflows.Spec) {
	const elsewhere = "mend the path; it must exist on every machine with a cpu or gpu worker"
	for _, s := range spec.Documents.Sources {
		what := "documents " + s.Name
		if strings.Contains(s.Path, "://") {
			d.say(what, works, "", "%s, read by workers", s.Path)
		} else if _, err := documents.Local(s); err != nil {
			d.say(what, failing, elsewhere, "%v", err)
		} else {
			d.say(what, works, "", "%s", s.Path)
		}
	}
	if path := spec.Tokenizer.Path; path != "" {
		if t, err := tokenizer.Load(path); err != nil {
			d.say("tokenizer", failing, elsewhere, "%v", err)
		} else {
			d.say("tokenizer", works, "", "%s: %d tokens", path, t.VocabSize())
		}
	}
	if path := spec.Model.Path; path != "" {
		c, err := llama.ReadConfig(path)
		if err == nil {
			_, err = llama.Files(path)
		}
		if err != nil {
			d.say("model", failing, elsewhere, "%v", err)
		} else {
			n := llama.MemoryPlan(c, gpu.BFloat16, llama.Placement{}, 0).Count
			d.say("model", works, "", "%s: %.3g parameters", path, float64(n))
		}
	}
}

// endpoints asks each endpoint that an experiment names for one token. It is paid for like any other request.
func (d *doctor) endpoints(ctx context.Context, spec workflows.Spec) {
	if spec.Instructions.Teacher == datasets.OfflineTeacher {
		d.say("teacher", works, "", "rules, which need no endpoint")
	}
	endpoints := spec.Endpoints
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		what := "endpoint " + name
		p := endpoints[name].Defaults()
		p.MaxTokens = 1
		e, err := llm.Open(p, 1)
		var key *llm.KeyError
		switch {
		case errors.As(err, &key):
			d.say(what, warns, "only workers of queue llm need it; set it there", "%v", err)
			continue
		case err != nil:
			d.say(what, failing, "mend endpoints."+name+" in the file", "%v", err)
			continue
		}
		asking, cancel := context.WithTimeout(ctx, 20*time.Second)
		start := time.Now()
		var last llm.Problem
		_, err = e.Ask(asking, []datasets.Message{{Role: datasets.RoleUser, Content: "Say yes."}}, func(context.Context) error { return nil }, func(e *llm.CallError) {
			if last = e.Problem; last == llm.Unreachable {
				cancel() // a service that is not there will not be in some seconds either
			}
		})
		cancel()
		var call *llm.CallError
		switch {
		case err == nil:
			d.say(what, works, "", "%s answers (%s)", p.Describe(), time.Since(start).Round(time.Millisecond))
		case errors.As(err, &call) && call.Problem == llm.Denied:
			d.say(what, failing, "check the key, and that the account may use the model", "%v", err)
		default:
			detail := err.Error()
			if last != "" && asking.Err() != nil {
				detail = fmt.Sprintf("%s does not answer at %s: %s", p.Describe(), cmp.Or(p.BaseURL, "its service"), last)
			}
			d.say(what, failing, "check base_url and model; a service of your own must be running", "%s", detail)
		}
	}
}
