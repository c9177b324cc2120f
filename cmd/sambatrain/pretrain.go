package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

func newPretrain(a *app) *cobra.Command {
	var flags recipeFlags
	var processes processFlags
	var output outputForm
	var resume bool
	c := &cobra.Command{
		Use:   "pretrain RECIPE",
		Short: "Train a model from a recipe",
		Long: `Train a model from a recipe: a YAML file, or the name of a built-in one
(sambatrain recipes ls). The run directory gets the resolved recipe, metrics.jsonl,
a TensorBoard event file, checkpoints and a generated sample.

--resume continues the run in the run directory if there is one, and starts it
otherwise: one command for launchers that restart processes. The recipe must be that of
the run.`,
		Example:           "  sambatrain pretrain recipes/quickstart.yaml\n  sambatrain pretrain quickstart --steps 20 --out runs/try --set optim.lr=1e-3",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			if resume {
				return a.train(c, processes, r.Run.Device, output, func(o train.Options) (*train.Result, error) {
					ctx, stop := untilSignal(c.Context(), o.Log)
					defer stop()
					return train.Finish(ctx, r, o)
				})
			}
			return a.pretrain(c, r, processes, output)
		},
	}
	c.Flags().BoolVar(&resume, "resume", false, "continue the run in the run directory, if there is one")
	flags.addRun(c)
	processes.add(c)
	outputFlag(c, &output)
	return c
}

// pretrain executes a recipe's run.
func (a *app) pretrain(c *cobra.Command, r *recipes.Recipe, processes processFlags, output outputForm) error {
	return a.train(c, processes, r.Run.Device, output, func(o train.Options) (*train.Result, error) {
		ctx, stop := untilSignal(c.Context(), o.Log)
		defer stop()
		return train.Pretrain(ctx, r, o)
	})
}

// printRun prints a run's result. Of several processes only the first has one.
func printRun(c *cobra.Command, output outputForm, r *train.Result) error {
	if r == nil {
		return nil
	}
	return printResult(c, output, r, func(w io.Writer) error {
		fmt.Fprintf(w, "run              %s\n", r.Run)
		fmt.Fprintf(w, "trained          %s steps, %s tokens, %s parameters, %s\n", thousands(r.Steps), thousands(r.Tokens), thousands(r.Parameters),
			duration(time.Duration(r.Seconds*float64(time.Second))))
		fmt.Fprintf(w, "validation loss  %.4f nats per token, %.4f bits per byte\n", r.ValLoss, r.ValBitsPerByte)
		if r.UnigramBitsPerByte > 0 {
			fmt.Fprintf(w, "byte unigram     %.4f bits per byte\n", r.UnigramBitsPerByte)
		}
		if r.Sample != "" {
			fmt.Fprintf(forPeople(w), "\n--- sample ---\n%s\n--------------\n", r.Sample)
		}
		return nil
	})
}
