package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/convert"
	"github.com/sambatrain/sambatrain/internal/shell"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

func newImport(a *app) *cobra.Command {
	var flags recipeFlags
	var recipe string
	c := &cobra.Command{
		Use:   "import DIR",
		Short: "Make a run from another program's model, to train it further",
		Long: `Read a model of Transformers (MambaForCausalLM, LlamaForCausalLM, MistralForCausalLM),
flash-linear-attention (SambaForCausalLM), state-spaces/mamba or of this program's
` + "`export --format safetensors`" + ` from the config.json and safetensors in DIR, and make a run
directory with it as the checkpoint of step 0. The recipe gives everything but the model:
its model section is replaced by that of DIR.`,
		Example: "  sambatrain import mamba-130m --recipe my.yaml --out runs/mamba\n  sambatrain resume runs/mamba",
		Args:    exactArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if recipe == "" {
				return &usageError{errors.New("--recipe: name the recipe to train the model further with")}
			}
			r, err := flags.load(c, recipe)
			if err != nil {
				return err
			}
			o, err := a.launchedOptions(c)
			if err != nil {
				return err
			}
			class, err := importModel(args[0], r, o)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "imported %s (%s) to %s; train it further with: %s\n", args[0], class, r.Run.Out, shell.Command("sambatrain", "resume", r.Run.Out))
			return nil
		},
	}
	c.Flags().StringVar(&recipe, "recipe", "", "recipe that gives everything but the model")
	complete(c, "recipe", completeRecipe)
	flags.addRun(c)
	return c
}

// importModel makes the recipe's run with the model in dir, which it also puts into the recipe, and
// returns the model's class.
func importModel(dir string, r *recipes.Recipe, o train.Options) (class string, err error) {
	x, err := convert.Open(dir)
	if err != nil {
		return "", err
	}
	defer x.Close()
	x.Model.Init = r.Model.Init
	r.Model = *x.Model
	if err := r.Validate(); err != nil {
		return "", err
	}
	tok, err := data.NewTokenizer(r.Data.Tokenizer)
	if err != nil {
		return "", fmt.Errorf("data.tokenizer: %w", err)
	}
	if err := r.CheckTokenizer(tok); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	same, err := x.SameTokenizer(tok.ExportFiles())
	if err != nil {
		return "", err
	}
	if !same {
		o.Log.Warn("the recipe's data.tokenizer differs from the tokenizer that the model was trained with", "model", dir, "tokenizer", tok.Name())
	}
	return x.Class, train.Begin(r, o, x.Read)
}
