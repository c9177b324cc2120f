package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
)

func newBench(a *app) *cobra.Command {
	var flags recipeFlags
	var output outputForm
	var runs int
	c := &cobra.Command{
		Use:   "bench [RECIPE]",
		Short: "Time a recipe's training step on this machine",
		Long: `Time a recipe's training step (default: quickstart) on random tokens: tokens a
second, and each op's time, share and rate.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactArgs("[RECIPE]")(c, args)
			}
			return nil
		},
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			name := "quickstart"
			if len(args) == 1 {
				name = args[0]
			}
			if runs < 1 {
				return &usageError{fmt.Errorf("--runs: must be at least 1, is %d", runs)}
			}
			r, err := flags.load(c, name)
			if err != nil {
				return err
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			b, err := train.Bench(r, runs, log)
			if err != nil {
				return err
			}
			return printResult(c, output, b, func(w io.Writer) error { return benchText(w, b) })
		},
	}
	c.Flags().IntVar(&runs, "runs", 10, "how many steps to time")
	flags.add(c)
	outputFlag(c, &output)
	return c
}

func benchText(w io.Writer, b *train.Benchmark) error {
	fmt.Fprintf(w, "%s on %s: %d rows of %d tokens\n", b.Name, b.Device, b.Rows, b.SeqLen)
	fmt.Fprintf(w, "step %.1f ms (median of %d; %.1f to %.1f), %.0f tokens/s, %.1f GFLOP/s of the model's work\n\n",
		b.StepMS, b.Steps, b.MinStepMS, b.MaxStepMS, b.TokensPerSecond, b.ModelGFLOPs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "op\tcalls\tms\tshare\tGFLOP/s\tGB/s\t")
	for _, o := range b.Ops {
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%.1f%%\t%.1f\t%.1f\t\n", o.Op, o.Calls, o.MS, 100*o.Share, o.GFLOPs, o.GBs)
	}
	return t.Flush()
}
