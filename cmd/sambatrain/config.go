package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check recipes", Args: cobra.ArbitraryArgs}
	var flags recipeFlags
	var show bool
	validate := &cobra.Command{
		Use:               "validate RECIPE",
		Short:             "Check a recipe without running it",
		Long:              "Check a recipe without running it. docs/recipes.md says what each key means.",
		Example:           "  sambatrain config validate mine.yaml\n  sambatrain config validate quickstart --set train.steps=1000 --show",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			if show {
				text, err := r.YAML()
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(text)
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is valid\n", args[0])
			return err
		},
	}
	validate.Flags().BoolVar(&show, "show", false, "print the recipe with every key, defaults included")
	flags.addRun(validate)
	c.AddCommand(validate)
	return c
}
