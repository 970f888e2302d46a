package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func newVersionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the program's version, revision and platform",
		Example: "  starter version --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			code, platform := artifact.CurrentCode(), artifact.CurrentPlatform()
			if asJSON {
				return printJSON(c.OutOrStdout(), map[string]any{"code": code, "platform": platform})
			}
			revision := code.Revision
			if revision == "" {
				revision = "unknown"
			}
			if code.Dirty {
				revision += " with changes"
			}
			fmt.Fprintf(c.OutOrStdout(), "longalign %s, revision %s\n%s %s/%s, %s\n", code.Version, revision, platform.Go, platform.OS, platform.Arch, platform.CPU)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
