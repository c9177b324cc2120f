package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check recipes", Args: cobra.ArbitraryArgs}
	var flags recipeFlags
	var show bool
	validate := &cobra.Command{
		Use:   "validate RECIPE",
		Short: "Check a recipe without running it",
		Long: `Check a recipe without running it: its keys and values, and whether the tokenizer, the
token shards or the text to make them from, and the run of train.from exist. What does not
exist here is listed, and is no error: the recipe may be meant for another machine. Shards
that exist must have been made from the recipe's settings; their contents and the text are not
read (see data verify). docs/recipes.md says what each key means.`,
		Example:           "  sambatrain config validate mine.yaml\n  sambatrain config validate quickstart --set train.steps=1000 --show",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			missing, err := checkFiles(r)
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
			text := args[0] + " is valid"
			if len(missing) > 0 {
				text += ", but not everything that it names is here:\n  " + strings.Join(missing, "\n  ")
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), text)
			return err
		},
	}
	validate.Flags().BoolVar(&show, "show", false, "print the recipe with every key, defaults included")
	flags.addRun(validate)
	c.AddCommand(validate)
	return c
}

// checkFiles checks the files and folders that a recipe names, and returns those that do not exist
// here, one line each.
func checkFiles(r *recipes.Recipe) (missing []string, err error) {
	tok, err := data.NewTokenizer(r.Data.Tokenizer)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		missing = append(missing, fmt.Sprintf("data.tokenizer: no file %s: model.vocab_size was not compared with it", r.Data.Tokenizer))
	case err != nil:
		return nil, fmt.Errorf("data.tokenizer: %w", err)
	default:
		if err := r.CheckTokenizer(tok); err != nil {
			return nil, err
		}
	}
	absent, err := r.Data.Missing()
	if err != nil {
		return nil, err
	}
	for _, err := range absent {
		missing = append(missing, err.Error())
	}
	if from := r.Train.From; from != "" {
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, fmt.Sprintf("train.from: no folder %s", from))
		} else if _, err := train.TrainedConfig(from); err != nil {
			return nil, fmt.Errorf("train.from: %w", err)
		}
	}
	return missing, nil
}
