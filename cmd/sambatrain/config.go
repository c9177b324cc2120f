package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/recipes"
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
			note, err := fitsTokenizer(r)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if show {
				text, err := r.YAML()
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(text)
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is valid%s\n", args[0], note)
			return err
		},
	}
	validate.Flags().BoolVar(&show, "show", false, "print the recipe with every key, defaults included")
	flags.addRun(validate)
	c.AddCommand(validate)
	return c
}

// fitsTokenizer compares a recipe's model with its tokenizer. note says so if the tokenizer doesn't
// exist here.
func fitsTokenizer(r *recipes.Recipe) (note string, err error) {
	tok, err := data.NewTokenizer(r.Data.Tokenizer)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("; data.tokenizer %s is not here, so model.vocab_size was not compared with it", r.Data.Tokenizer), nil
	case err != nil:
		return "", fmt.Errorf("data.tokenizer: %w", err)
	}
	return "", r.CheckTokenizer(tok)
}
