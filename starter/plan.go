package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets"
)

// newPlanCommand plans one epoch of batches over a file of lengths.
func newPlanCommand() *cobra.Command {
	var (
		p     datasets.BatchesParams
		file  string
		epoch int
		stats bool
	)
	cmd := &cobra.Command{
		Use:   "plan --lengths FILE",
		Short: "Plan the batches of one epoch over sequences of given lengths",
		Long: `Plan reads one length in tokens a line and prints one optimizer step a line:

  {"step":0,"micro_batches":[[0,5],[3]]}

where the numbers are line numbers of FILE, from 0. Every sequence is in exactly one
micro-batch. --batch-size is the number of sequences a micro-batch (naive, sorted) or of packs a
step (packing). --stats prints one object about the plan instead; sequences_per_step_mean and _sd leave out the last step,
which takes what is left.`,
		Example: `  starter plan --lengths lengths.txt --method packing --max-length 65536 --batch-size 8 --stats
  starter plan --lengths lengths.txt --method sorted --batch-size 4 --sequences-per-step 64 > plan.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case p.MaxLength < 1:
				return usageError{fmt.Errorf("plan: --max-length %d is no length; use at least 1", p.MaxLength)}
			case epoch < 0:
				return usageError{fmt.Errorf("plan: --epoch %d is negative; epochs count from 0", epoch)}
			case p.Block > 0 && p.Block < 1<<14:
				fmt.Fprintf(cmd.ErrOrStderr(), "plan: warning: --block %d plans so few sequences together that packs stay emptier and steps less even\n", p.Block)
			}
			if err := p.Defaults().Validate(); err != nil {
				return usageError{fmt.Errorf("plan: %w; see %s --help", err, cmd.CommandPath())}
			}
			in := cmd.InOrStdin()
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return fmt.Errorf("plan: %w", err)
				}
				defer f.Close()
				in = f
			}
			lengths, err := readLengths(in, file)
			if err != nil {
				return err
			}
			start := time.Now()
			plan, err := datasets.NewPlan(lengths, p, epoch)
			if err != nil {
				return err
			}
			if !stats {
				return plan.WriteJSON(cmd.OutOrStdout())
			}
			seconds := time.Since(start).Seconds()
			st := plan.Stats(lengths)
			st.Seconds = seconds
			return json.NewEncoder(cmd.OutOrStdout()).Encode(st)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "lengths", "", "file with one length in tokens a line (- for standard input)")
	f.StringVar((*string)(&p.Method), "method", string(datasets.MethodPacking), "naive, sorted or packing")
	f.StringVar((*string)(&p.Packing), "packing", "", "default, next-fit, best-fit or best-fit-decreasing")
	f.IntVar(&p.MaxLength, "max-length", 65536, "most tokens a sequence, and a pack")
	f.IntVar(&p.BatchSize, "batch-size", 0, "sequences a micro-batch (naive, sorted) or packs a step (packing); 8 if not given")
	f.IntVar(&p.Accumulate, "accumulate", 0, "micro-batches a step (naive, sorted); 1 if not given")
	f.IntVar(&p.SequencesPerStep, "sequences-per-step", 0, "give every step this many sequences, by any method")
	f.Uint64Var(&p.Seed, "seed", 0, "seed of every random choice")
	f.IntVar(&epoch, "epoch", 0, "epoch to plan, from 0")
	f.StringVar((*string)(&p.OverLength), "over-length", string(datasets.TruncateRight), "truncate-right, truncate-middle, drop or error")
	f.StringVar((*string)(&p.Balance), "balance", "", "what packing makes even: tokens, or compute (packs that devices compute at the same time)")
	f.IntVar(&p.Block, "block", 0, "sequences planned together; 1048576 if not given")
	f.StringVar(&p.Compat, "compat", "", "thudm: leave out what the published code leaves out")
	f.BoolVar(&stats, "stats", false, "print statistics instead of the plan")
	if err := cmd.MarkFlagRequired("lengths"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// readLengths reads one positive length a line; blank lines are errors, for line numbers are IDs.
func readLengths(r io.Reader, name string) ([]int, error) {
	var lengths []int
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		n, err := strconv.Atoi(strings.TrimSpace(scan.Text()))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s:%d: %q is not a length in tokens; write one positive number a line", name, len(lengths)+1, scan.Text())
		}
		lengths = append(lengths, n)
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, len(lengths)+1, err)
	}
	if len(lengths) == 0 {
		return nil, fmt.Errorf("%s: no lengths; write one positive number a line", name)
	}
	return lengths, nil
}
