package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newDevCommand() *cobra.Command {
	var e embedded
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run the embedded stack and a worker until interrupted",
		Long: `dev starts Temporal, its UI, the artifact store and a worker on this machine, and keeps them until Ctrl-C. Other
commands in the same directory find them by themselves.`,
		Example: "  starter dev\n  starter dev --data /var/lib/longalign",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			here, err := e.start(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			ep := here.stack.Endpoint()
			fmt.Fprintf(c.OutOrStdout(), "Temporal UI  %s\nTemporal     %s (namespace %s)\nartifacts    %s at %s\ndata         %s\nStart a run from another terminal: starter run FILE. Ctrl-C ends the stack.\n",
				ep.UI, ep.Temporal, ep.Namespace, ep.StoreURI(storePrefix), ep.S3, e.data)
			select {
			case <-c.Context().Done():
			case <-here.stack.Exited():
				return errors.Join(fmt.Errorf("the embedded stack ended by itself: %w; see %s/devstack.log", here.stack.Wait(), e.data), here.worker.stop())
			}
			fmt.Fprintln(c.ErrOrStderr(), "stopping; running stages save first …")
			return here.stop()
		},
	}
	e.flags(c.Flags())
	return c
}
