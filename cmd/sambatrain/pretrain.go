package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

func newPretrain(a *app) *cobra.Command {
	var flags recipeFlags
	var output outputForm
	c := &cobra.Command{
		Use:   "pretrain RECIPE",
		Short: "Train a model from a recipe",
		Long: `Train a model from a recipe: a YAML file, or the name of a built-in one
(sambatrain recipes ls). The run directory gets the resolved recipe, metrics.jsonl,
a TensorBoard event file, checkpoints and a generated sample.`,
		Example:           "  sambatrain pretrain recipes/quickstart.yaml\n  sambatrain pretrain quickstart --steps 20 --out runs/try --set optim.lr=1e-3",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			return a.pretrain(c, r, output)
		},
	}
	flags.add(c)
	outputFlag(c, &output)
	return c
}

// pretrain does a recipe's run.
func (a *app) pretrain(c *cobra.Command, r *recipes.Recipe, output outputForm) error {
	o, err := a.trainOptions()
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(c.Context())
	defer stop()
	result, err := train.Pretrain(ctx, r, o)
	if err != nil {
		return err
	}
	return printRun(c, output, result)
}

func (a *app) trainOptions() (train.Options, error) {
	place, err := dist.Detect(dist.NoFlags(), os.LookupEnv, cuda.Count())
	if err != nil {
		return train.Options{}, err
	}
	if place.Spawn > 0 {
		return train.Options{}, fmt.Errorf("%s: asks for %d processes a node; start each of them with SAMBATRAIN_RANK, SAMBATRAIN_WORLD_SIZE and SAMBATRAIN_LOCAL_RANK", place.Source, place.Spawn)
	}
	if place.Rank > 0 && a.logLevel == "info" {
		a.logLevel = "warn" // the first process speaks for all
	}
	log, err := a.logger()
	return train.Options{
		Place:       place,
		Log:         log,
		Console:     func(o runlog.ConsoleOptions) runlog.Console { return runlog.NewConsole(os.Stderr, o) },
		CodeVersion: version(),
	}, err
}

// printRun prints a run's result. Of several processes the first has one.
func printRun(c *cobra.Command, output outputForm, r *train.Result) error {
	if r == nil {
		return nil
	}
	return printResult(c, output, r, func(w io.Writer) error {
		fmt.Fprintf(w, "run              %s\n", r.Run)
		fmt.Fprintf(w, "trained          %d steps, %d tokens, %d parameters, %.0f s\n", r.Steps, r.Tokens, r.Parameters, r.Seconds)
		fmt.Fprintf(w, "validation loss  %.4f nats a token, %.4f bits per byte\n", r.ValLoss, r.ValBitsPerByte)
		if r.UnigramBitsPerByte > 0 {
			fmt.Fprintf(w, "byte unigram     %.4f bits per byte\n", r.UnigramBitsPerByte)
		}
		if r.Sample != "" {
			fmt.Fprintf(w, "\n--- sample ---\n%s\n--------------\n", r.Sample)
		}
		return nil
	})
}
