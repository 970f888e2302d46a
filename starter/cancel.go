package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
)

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
