package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/recipes"
)

func newRecipes() *cobra.Command {
	c := &cobra.Command{Use: "recipes", Short: "List and show the built-in recipes"}
	c.AddCommand(newRecipesList(), &cobra.Command{
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

// builtinRecipe is one recipe of a list.
type builtinRecipe struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

func newRecipesList() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the built-in recipes",
		Example: "  sambatrain recipes ls | grep samba",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			var list []builtinRecipe
			for _, name := range recipes.Names() {
				text, _, err := recipes.Source(name)
				if err != nil {
					return err
				}
				list = append(list, builtinRecipe{name, headComment(string(text))})
			}
			return printResult(c, output, list, func(w io.Writer) error {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				for _, r := range list {
					fmt.Fprintf(t, "%s\t%s\n", r.Name, r.Description)
				}
				return t.Flush()
			})
		},
	}
	outputFlag(c, &output)
	return c
}

// headComment returns the comment at the start of a recipe, on one line.
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
