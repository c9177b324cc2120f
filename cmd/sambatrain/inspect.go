package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
)

func newInspect() *cobra.Command {
	var flags recipeFlags
	var output string
	c := &cobra.Command{
		Use:               "inspect RECIPE",
		Short:             "Count a recipe's parameters, FLOPs and memory",
		Example:           "  sambatrain inspect quickstart --output json",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			in, err := train.Inspect(r)
			if err != nil {
				return err
			}
			return printResult(c, output, in, func(w io.Writer) error { return inspectText(w, in) })
		},
	}
	flags.add(c)
	outputFlag(c, &output)
	return c
}

func inspectText(w io.Writer, in *train.Inspection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s: %d sublayers, %d steps of %d tokens\n\n", in.Name, in.Sublayers, in.Steps, in.TokensPerStep)
	fmt.Fprintln(t, "part\tcount\tparameters\tshare\t")
	for _, p := range in.Parameters.Parts {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f%%\t\n", p.Name, p.Count, p.Parameters, 100*float64(p.Parameters)/float64(in.Parameters.Total))
	}
	fmt.Fprintf(t, "total\t\t%d\t\t\n", in.Parameters.Total)
	fmt.Fprintf(t, "without embedding\t\t%d\t\t\n", in.Parameters.NonEmbedding)
	if err := t.Flush(); err != nil {
		return err
	}
	m := in.Memory
	_, err := fmt.Fprintf(w, "\nwork    %.3f GFLOP a token, forward and backward\nmemory  %.2f GB a step: parameters %.2f, gradients %.2f, optimizer %.2f, activations %.2f\n",
		in.FLOPsPerToken/1e9, gb(m.Total), gb(m.Parameters), gb(m.Gradients), gb(m.Optimizer), gb(m.Activations))
	return err
}

func gb(n int64) float64 { return float64(n) / 1e9 }
