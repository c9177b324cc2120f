package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/recipes"
)

func newRecipes() *cobra.Command {
	c := &cobra.Command{Use: "recipes", Short: "List and show the built-in recipes", Args: cobra.ArbitraryArgs}
	c.AddCommand(&cobra.Command{
		Use:     "ls",
		Short:   "List the built-in recipes",
		Example: "  sambatrain recipes ls | grep samba",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, name := range recipes.Names() {
				text, _, err := recipes.Source(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(t, "%s\t%s\n", name, headComment(string(text)))
			}
			return t.Flush()
		},
	}, &cobra.Command{
		Use:               "show RECIPE",
		Short:             "Print a recipe's text",
		Example:           "  sambatrain recipes show samba-421m > mine.yaml",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			text, _, err := recipes.Source(args[0])
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	})
	return c
}

// headComment is the comment that a recipe begins with, on one line.
func headComment(text string) string {
	var words []string
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		words = append(words, strings.TrimSpace(comment))
	}
	return strings.Join(words, " ")
}
