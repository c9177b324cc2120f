package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
)

func newInspect() *cobra.Command {
	var flags recipeFlags
	var output outputForm
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
	flags.addSteps(c)
	outputFlag(c, &output)
	return c
}

func inspectText(w io.Writer, in *train.Inspection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s: %d sublayers, %s steps of %s tokens\n\n", in.Name, in.Sublayers, thousands(in.Steps), thousands(in.TokensPerStep))
	fmt.Fprintln(t, "part\tcount\tparameters\tshare\t")
	for _, p := range in.Parameters.Parts {
		fmt.Fprintf(t, "%s\t%d\t%s\t%.1f%%\t\n", p.Name, p.Count, thousands(p.Parameters), 100*float64(p.Parameters)/float64(in.Parameters.Total))
	}
	fmt.Fprintf(t, "total\t\t%s\t\t\n", thousands(in.Parameters.Total))
	fmt.Fprintf(t, "without embedding\t\t%s\t\t\n", thousands(in.Parameters.NonEmbedding))
	if err := t.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\nwork    %sFLOP per token, forward and backward, in %s\nmemory  %s\n        %sB more of the host's memory for the copy that checkpoints are written from\n",
		metric(in.FLOPsPerToken), in.Precision, memoryText(in.Memory), metric(float64(in.Memory.CheckpointCopy))); err != nil {
		return err
	}
	if in.Recomputed == 0 {
		return nil
	}
	var ops []string
	for _, name := range slices.Sorted(maps.Keys(in.RecomputedOps)) {
		ops = append(ops, fmt.Sprintf("%d %s", in.RecomputedOps[name], name))
	}
	_, err := fmt.Fprintf(w, "        to keep within run.memory_budget, %d kernel calls of the forward pass are recomputed in the backward pass:\n        %s\n",
		in.Recomputed, strings.Join(ops, ", "))
	return err
}

// memoryText describes a step's memory, by part.
func memoryText(m train.Bytes) string {
	return fmt.Sprintf("%sB per step: parameters %sB, gradients %sB, optimizer %sB, activations %sB", metric(float64(m.Total)),
		metric(float64(m.Parameters)), metric(float64(m.Gradients)), metric(float64(m.Optimizer)), metric(float64(m.Activations)))
}

// metric writes x with four digits, followed by the prefix of a unit.
func metric(x float64) string {
	prefixes := []string{"", "k", "M", "G", "T", "P", "E"}
	i := 0
	for ; x >= 999.95 && i < len(prefixes)-1; i++ {
		x /= 1000
	}
	digits := 3
	for limit := 9.9995; x >= limit && digits > 0; limit *= 10 {
		digits--
	}
	if i == 0 {
		digits = 0
	}
	return fmt.Sprintf("%.*f %s", digits, x, prefixes[i])
}
