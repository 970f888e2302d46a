package main

import (
	"fmt"
	"io"

	"github.com/longalign/longalign-go/workflows"
)

// printDryRun says what a run would be, without starting anything.
func printDryRun(w io.Writer, spec workflows.Spec) error {
	id, err := spec.WorkflowID()
	if err != nil {
		return err
	}
	cells, err := spec.Cells()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s would run %d cells:\n", id, len(cells))
	for _, c := range cells {
		fmt.Fprintf(w, "  %-28s %s batches, loss %s, learning rate %g\n", c.Name, c.Spec.Batches.Method, c.Spec.Train.Loss, c.Spec.Train.LearningRate)
	}
	return nil
}
