package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/instructions"
)

func newPromptsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prompts DIR",
		Short: "Write the teacher's prompt templates to a directory, to edit them",
		Long: `prompts writes the templates by which a teacher is asked: propose/TASK/LANG.txt for questions about a document, answer/LANG.txt for
its answers. An experiment uses edited ones by

  instructions:
    prompts_dir: DIR

where files that are left out stay as they are built in. Fields: {{.Document}}, {{.Title}}, {{.Question}}, {{.Questions}}.`,
		Example: "  starter prompts my-prompts",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := instructions.WritePrompts(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "wrote %s; use them by instructions.prompts_dir\n", args[0])
			return nil
		},
	}
}
