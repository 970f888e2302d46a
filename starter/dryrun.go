package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/train"
	"github.com/longalign/longalign-go/workflows"
)

// dryRun is what a run would do.
type dryRun struct {
	ID      string                `json:"id"`
	Store   string                `json:"store,omitempty"` // empty: none could be reached, so nothing is known to be there
	Device  gpu.Info              `json:"device"`
	Results []activities.Foreseen `json:"results"`
	// Problems are all that the run would fail for; Warnings what may hinder it.
	Problems []activities.Problem `json:"problems,omitempty"`
	Warnings []string             `json:"warnings,omitempty"`
	Seconds  float64              `json:"device_seconds"` // of training and predictions, on one device
	Disk     int64                `json:"disk_bytes"`
	States   int64                `json:"state_bytes"`
	Money    llm.Range            `json:"usd"`
	// Unpriced says that more is paid for than Money tells: results that ask an endpoint with a price, how often is not known yet.
	Unpriced bool `json:"usd_unknown,omitempty"`
	// Unknown are things that cannot be foretold before others are made.
	Unknown []string `json:"unknown,omitempty"`
}

// foretell rehearses a run against the store. It starts nothing, stores nothing and pays nothing.
//
// dir is where the store lies on this machine, "" if it does not.
func foretell(ctx context.Context, spec workflows.Spec, store *artifact.Store, dir string, stderr io.Writer) (*dryRun, error) {
	id, err := spec.WorkflowID()
	if err != nil {
		return nil, err
	}
	d := &dryRun{ID: id}
	if store == nil {
		if store, err = artifact.Open(ctx, "mem://dry-run-"+id); err != nil {
			return nil, err
		}
	} else {
		d.Store = store.URI()
	}
	a := &activities.Activities{Store: store, OpenDevice: devices.Open}
	r, done, err := a.Rehearse(ctx)
	if err != nil {
		return nil, err
	}
	status := newStatusLine(stderr)
	r.Say = status.say
	d.Device = r.Device
	err = workflows.Rehearse(ctx, spec, r)
	status.clear()
	d.Results, d.Problems = r.Foreseen(), r.Problems()
	for _, why := range r.Lacking() {
		d.Warnings = append(d.Warnings, fmt.Sprintf("%s; so memory, time and what the store has are those of %s: try the dry run where that device is", why, r.Device.Name))
	}
	slices.SortStableFunc(d.Results, func(a, b activities.Foreseen) int {
		return slices.Index(activities.Stages, a.Stage) - slices.Index(activities.Stages, b.Stage)
	})
	if removeErr := done(); err == nil {
		err = removeErr
	}
	asks := false
	for _, f := range d.Results {
		if f.Hit {
			continue
		}
		d.Disk += f.Forecast.DiskBytes
		d.States += f.Forecast.StateBytes
		if f.Takes == "a model on a device" {
			d.Seconds += f.Forecast.Seconds
		}
		if f.Takes == "a training" {
			d.Seconds += f.Forecast.Seconds
			if f.Forecast.Seconds == 0 && !f.Blocked {
				d.unknown("the time of trainings whose batches are not there yet, or whose speed is not known")
			}
		}
		if m := f.Forecast.Money; m != nil {
			d.Money.Low, d.Money.High = d.Money.Low+m.USD.Low, d.Money.High+m.USD.High
			asks = true
		} else if f.Blocked && slices.Contains([]string{"a teacher", "a judge", "a language model"}, f.Takes) {
			d.unknown("the price of what follows a failure")
			d.Unpriced, asks = true, true
		} else if f.Takes == "a teacher" {
			d.unknown("the price of instructions whose documents are not there yet")
			d.Unpriced, asks = true, true
		} else if f.Takes == "a judge" || f.Takes == "a language model" {
			d.unknown("the price of judgments and of answers by endpoints whose price_in and price_out the file does not give")
			d.Unpriced, asks = true, true
		}
	}
	if err == nil && asks {
		d.endpoints(ctx, spec)
	}
	if d.Disk+d.States > 0 && dir != "" {
		abs, free, spaceErr := spaceAt(dir)
		if most := d.Disk + d.States; spaceErr == nil && free < most {
			d.Warnings = append(d.Warnings, fmt.Sprintf("%s has %s free, of the %s that results and training states may take; free some (starter gc says what the store can spare), or name another disk",
				abs, size(free), size(most)))
		}
	}
	return d, err
}

// endpoints looks whether the experiment's endpoints are there and take the key, which costs nothing.
func (d *dryRun) endpoints(ctx context.Context, spec workflows.Spec) {
	for _, name := range slices.Sorted(maps.Keys(spec.Endpoints)) {
		warn := func(format string, args ...any) {
			d.Warnings = append(d.Warnings, fmt.Sprintf("endpoint "+name+": "+format, args...))
		}
		e, err := llm.Open(spec.Endpoints[name], 1)
		if err != nil {
			warn("%v", err)
			continue
		}
		looking, cancel := context.WithTimeout(ctx, 10*time.Second)
		models, err := e.Models(looking)
		cancel()
		var call *llm.CallError
		switch {
		case errors.As(err, &call) && call.Problem == llm.Denied:
			d.Problems = append(d.Problems, activities.Problem{Stage: "endpoint", For: name, Message: err.Error() + "; check the key"})
		case err != nil:
			warn("%v; check base_url: a run waits until it answers", err)
		case len(models) > 0 && !slices.Contains(models, e.Params().Model):
			warn("its list of models does not name %s, but %s", e.Params().Model, shortList(models, 8))
		}
	}
}

// shortList names the first of many.
func shortList(names []string, most int) string {
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (d *dryRun) unknown(what string) {
	if !slices.Contains(d.Unknown, what) {
		d.Unknown = append(d.Unknown, what)
	}
}

// print says what would happen, stage by stage.
func (d *dryRun) print(w io.Writer, spec workflows.Spec) error {
	cells, err := spec.Cells()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s would run %s", d.ID, plural(len(cells), "cell"))
	if d.Store != "" {
		fmt.Fprintf(w, " against %s", d.Store)
	}
	fmt.Fprintf(w, ", on a device such as this one: %s (%s)\n", d.Device.Name, d.Device.Class)
	if d.Store == "" {
		fmt.Fprintln(w, "no store is named, so nothing is known to be made already: --store or LONGALIGN_STORE names one")
	}
	t := newTextTable(w, "STAGE", "FOR", "", "STEPS", "TOKENS", "SAMPLES", "MEMORY", "TIME", "DISK")
	for _, f := range d.Results {
		what := "would be made"
		switch {
		case f.Problem != "":
			what = "WOULD FAIL"
		case f.Hit:
			what = "hit"
		case f.Blocked:
			what = "not reached"
		case f.Tried:
			what = "would be made, tried"
		case f.Takes != "":
			what = "takes " + f.Takes
		}
		memory := ""
		if m := f.Forecast.Memory; m != nil && m.Total > 0 {
			memory = size(m.Total)
			if f.Forecast.Steps == 0 {
				memory = "≤ " + memory
			}
		}
		t.row(f.Stage, f.Cell, what, count(int64(f.Forecast.Steps)), count(f.Forecast.Tokens), count(int64(f.Forecast.Samples)), memory, seconds(f.Forecast.Seconds), bytesOrNone(f.Forecast.DiskBytes))
	}
	if err := t.flush(); err != nil {
		return err
	}
	hits := 0
	var speeds []string
	for _, f := range d.Results {
		if f.Hit {
			hits++
		}
		if s := f.Forecast.Speed; s != "" && !slices.Contains(speeds, s) {
			speeds = append(speeds, s)
		}
	}
	fmt.Fprintf(w, "\nresults  %d, of which the store has %d\n", len(d.Results), hits)
	if len(d.Problems) > 0 {
		fmt.Fprintln(w, "         what follows a failure was rehearsed as if that were mended, so that all is found at once; the sums lack what could not be foretold")
	}
	if len(speeds) > 0 {
		fmt.Fprintf(w, "device   about %s of training and predictions on one (%s)\n", seconds(d.Seconds), strings.Join(speeds, "; "))
	}
	var plans []string
	for _, f := range d.Results {
		if m := f.Forecast.Memory; m != nil && m.Total > 0 {
			if line := memoryLine(m); !slices.Contains(plans, line) {
				plans = append(plans, line)
			}
		}
	}
	for _, line := range plans {
		fmt.Fprintf(w, "memory   %s\n", line)
	}
	fmt.Fprintf(w, "disk     %s of results, at most %s of training states, which starter gc removes later\n", size(d.Disk), size(d.States))
	endpoints := spec.Endpoints
	priced := func(e datasets.EndpointParams) bool { return e.PriceIn > 0 || e.PriceOut > 0 }
	unpriced := d.Unpriced && slices.ContainsFunc(slices.Collect(maps.Values(endpoints)), priced)
	switch {
	case d.Unpriced && !unpriced && d.Money.High == 0:
		fmt.Fprintln(w, "money    not known: endpoints are asked, whose price_in and price_out the file does not give")
	case d.Money.High > 0 || unpriced:
		if unpriced {
			fmt.Fprintf(w, "money    %.2f USD or more: what is listed as unknown is paid for too\n", d.Money.Low)
		} else {
			fmt.Fprintf(w, "money    %.2f to %.2f USD\n", d.Money.Low, d.Money.High)
		}
		for _, name := range slices.Sorted(maps.Keys(endpoints)) {
			if most := endpoints[name].MaxCostUSD; most > 0 && (unpriced || most < d.Money.High) {
				fmt.Fprintf(w, "         endpoint %s: a stage stops before it passes %.2f USD (max_cost_usd)\n", name, most)
			}
		}
	default:
		fmt.Fprintln(w, "money    nothing is paid for")
	}
	for _, u := range d.Unknown {
		fmt.Fprintf(w, "unknown  %s\n", u)
	}
	for _, warning := range d.Warnings {
		fmt.Fprintf(w, "warning  %s\n", warning)
	}
	for _, p := range d.Problems {
		fmt.Fprintf(w, "FAILS    %s · %s: %s\n", p.Stage, p.For, p.Message)
		if len(p.Cells) > 1 {
			fmt.Fprintf(w, "         %s would fail: %s\n", plural(len(p.Cells), "cell"), shortList(p.Cells, 8))
		}
	}
	return nil
}

// memoryLine is the plan of a training's memory, by part.
func memoryLine(m *train.Memory) string {
	parts := func(names []string, values ...int64) string {
		var out []string
		for i, v := range values {
			if v > 0 {
				out = append(out, names[i]+" "+size(v))
			}
		}
		return strings.Join(out, ", ")
	}
	s := fmt.Sprintf("recompute: %s, offload: %s, optimizer_states: %s; on the device %s (%s)", m.Recompute, m.Offload, m.States, size(m.Total),
		parts([]string{"weights", "gradients", "optimizer", "windows", "activations", "a checkpoint"}, m.Weights, m.Gradients, m.Optimizer, m.Windows, m.Activations, m.OnDevice(m.Snapshot)))
	if m.Available > 0 {
		s += " of " + size(m.Available)
	}
	if m.HostTotal > 0 {
		s += fmt.Sprintf("; of host memory %s (%s)", size(m.HostTotal), parts([]string{"weights", "gradients", "optimizer", "activations", "a checkpoint"},
			m.HostWeights, m.HostGradients, m.HostOptimizer, m.HostActivations, m.Snapshot))
	}
	return s
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func bytesOrNone(n int64) string {
	if n == 0 {
		return ""
	}
	return size(n)
}

func seconds(s float64) string {
	if s == 0 {
		return ""
	}
	d := time.Duration(s * float64(time.Second))
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
