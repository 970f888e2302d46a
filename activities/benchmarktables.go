package activities

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/reports"
)

// leaderboardAverages adds the means over the leaderboard's five datasets, which two benchmarks hold.
func leaderboardAverages(metrics map[string]reports.ScoreSet) {
	for _, metric := range []string{metricSubEM, metricF1Score} {
		var all reports.ScoreSet
		found := 0
		for _, dataset := range longbench.LeaderboardDatasets() {
			rows := longbench.EnQARows
			if d, err := longbench.Lookup(longbench.LongBench, dataset); err == nil {
				rows = d.Rows
			}
			set, ok := metrics[leaderboardNames[dataset]+" "+metric]
			if !ok {
				all.Wanted += rows
				continue
			}
			found++
			all.Wanted += set.Wanted
			all.AnsweredBy = cmp.Or(all.AnsweredBy, set.AnsweredBy)
			all.Marks, all.Sources = unionOf(all.Marks, set.Marks), unionOf(all.Sources, set.Sources)
			for _, x := range set.Samples {
				x.Group = dataset
				all.Samples = append(all.Samples, x)
			}
		}
		if found > 0 {
			metrics["Average Overall "+metric] = all
		}
	}
}

// BenchmarkRole names the input of the tables stage that holds a cell's scores in a benchmark.
func BenchmarkRole(cell, benchmark string) string { return "benchmarks/" + cell + "/" + benchmark }

// benchmarkRoles are the inputs that hold a cell's scores in benchmarks.
func (j *job) benchmarkRoles(c TablesCell) []string {
	var roles []string
	for role := range j.call.Inputs {
		if strings.HasPrefix(role, BenchmarkRole(c.Name, "")) {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// benchmarks adds a cell's scores in benchmarks to what the tables print.
func (j *job) benchmarks(ctx context.Context, c TablesCell, d *reports.CellData) error {
	for _, role := range j.benchmarkRoles(c) {
		var made Scores
		if err := j.readJSON(ctx, role, "scores.json", &made); err != nil {
			return err
		}
		moved, err := j.judgeMoved(ctx, c, role)
		if err != nil {
			return err
		}
		source := []string{reports.Source(j.call.Inputs[role])}
		for name, set := range made.Metrics {
			set.Sources, set.AnsweredBy = source, made.AnsweredBy
			if moved && slices.Contains(made.Judged, name) {
				set.Marks = unionOf(set.Marks, []string{reports.NoteMoved})
			}
			d.Scores[name] = set
		}
		if made.Needle != nil {
			d.Needle = made.Needle
			d.Needle.Sources, d.Needle.AnsweredBy = source, made.AnsweredBy
		}
	}
	leaderboardAverages(d.Scores)
	return nil
}

// judgeMoved tells whether the judge behind scores rates otherwise than it did at first. That was measured, and so is in the
// judgments' manifest alone.
func (j *job) judgeMoved(ctx context.Context, c TablesCell, role string) (bool, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return false, err
	}
	ref, ok := j.own.inputs(ctx, m, c.Name)["judgments"]
	if !ok {
		return false, nil
	}
	judgments, err := j.a.Store.Current(ctx, ref)
	if err != nil {
		return false, err
	}
	return slices.Contains(judgments.Flags, flagMoved), nil
}
