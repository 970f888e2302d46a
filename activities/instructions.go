package activities

import (
	"context"
	"iter"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/instructions"
)

// instructionsStage asks a teacher about each document. Outputs: instances.jsonl.zst (training),
// held-out.jsonl.zst, report.json.
var instructionsStage = stage{name: "instructions", version: 1, describe: describeParams[datasets.InstructionsParams], run: runInstructions}

// Files of the instructions stage.
const (
	trainFile   = "instances.jsonl.zst"
	heldOutFile = "held-out.jsonl.zst"
)

func runInstructions(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.InstructionsParams](j.call.Params)
	if err != nil {
		return err
	}
	teacher, err := j.a.teacher(p.Teacher)
	if err != nil {
		return err
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return err
	}
	// The teacher's description goes wherever its answers are shown.
	j.note("teacher: %s", teacher.Describe())
	train, err := newLines(filepath.Join(j.dir, trainFile))
	if err != nil {
		return err
	}
	defer train.close()
	heldOut, err := newLines(filepath.Join(j.dir, heldOutFile))
	if err != nil {
		return err
	}
	defer heldOut.close()
	maker := instructions.Maker{Teacher: teacher, Params: p, Count: tok.Count, Concurrency: 2}
	if err := maker.Init(); err != nil {
		return badConfig("%w", err)
	}
	n := int64(0)
	report, err := maker.Make(ctx, j.documents(ctx), 0, func(i datasets.Instance) error {
		if n++; n%100 == 0 {
			j.report(ctx, Progress{Done: n, Unit: "instance"})
		}
		if i.Meta != nil && i.Meta.Split == datasets.SplitHeldOut {
			return heldOut.add(i)
		}
		return train.add(i)
	})
	if err != nil {
		return err
	}
	if report.Instances-report.HeldOut == 0 {
		return badData("the teacher gave no usable answer to any of the training documents: %v", report.Failed)
	}
	for _, f := range []struct {
		name string
		w    *lineWriter
	}{{trainFile, train}, {heldOutFile, heldOut}} {
		if err := f.w.close(); err != nil {
			return err
		}
		if err := j.putFile(ctx, f.name, "application/zstd", filepath.Join(j.dir, f.name)); err != nil {
			return err
		}
	}
	j.count("instances", int64(report.Instances))
	j.count("held_out", int64(report.HeldOut))
	for reason, n := range report.Failed {
		j.count("failed: "+reason, int64(n))
	}
	return j.putJSON(ctx, "report.json", report)
}

// teacher returns the teacher of that name.
func (a *Activities) teacher(name string) (datasets.Teacher, error) {
	if name == "offline" {
		return instructions.Offline{}, nil
	}
	return nil, badConfig("teacher %q is not configured; use offline", name)
}

// instances streams the conversations of an input's file.
func (j *job) instances(ctx context.Context, role, file string) iter.Seq2[datasets.Instance, error] {
	return lines[datasets.Instance](ctx, j, role, file)
}
