package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/bench"
)

func newBenchGenerate(a *app) *cobra.Command {
	var flags recipeFlags
	var output outputForm
	var o bench.GenerateOptions
	var prompts, positions []string
	c := &cobra.Command{
		Use:   "generate RECIPE",
		Short: "Time prompt processing and decoding of a recipe's model",
		Long: `Time a recipe's model with arbitrary weights: the throughput of prompts of several
lengths, each measurement with the same total number of tokens, and the speed of decoding
a batch token by token, at several positions.

Prompts are compared with the compute limit (the FLOPs of the model's matrix products and
of attention), decoding with the memory bandwidth limit (the bytes of weights and states).
The limits of a CPU are measured, those of a known GPU come from its data sheet;
--peak-tflops and --peak-gbs override them.`,
		Example:           "  sambatrain bench generate quickstart --tokens 8k --prompts 1k,2k,4k,8k --positions 0,1k --rows 4\n  sambatrain bench generate samba-1.7b --device cuda --dtype bfloat16",
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			if err := benchGenerateOptions(c, &o, prompts, positions); err != nil {
				return err
			}
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			if o.Log, err = a.logger(); err != nil {
				return err
			}
			g, err := bench.Generate(r, o)
			if err != nil {
				return err
			}
			return printResult(c, output, g, func(w io.Writer) error { return generationText(w, g) })
		},
	}
	f := c.Flags()
	f.StringSliceVar(&prompts, "prompts", []string{"1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k"}, "`lengths` of prompts, ascending")
	f.String("tokens", "128k", "tokens per measurement of prompts; divided by the length, its number of rows")
	f.String("call-tokens", "16k", "number of tokens, over all rows, computed at once")
	f.StringSliceVar(&positions, "positions", []string{"0", "1k", "4k", "16k", "64k"}, "`positions` at which decoding is timed, ascending; empty for none")
	f.IntVar(&o.Rows, "rows", 16, "number of texts decoded together")
	f.IntVar(&o.Steps, "decode-steps", 50, "number of tokens timed at each position")
	f.IntVar(&o.Runs, "runs", 5, "number of times that prompts are timed")
	f.Float64Var(&o.TFLOPs, "peak-tflops", 0, "compute limit in TFLOP/s; 0 measures it, or looks it up")
	f.Float64Var(&o.GBs, "peak-gbs", 0, "memory bandwidth limit in GB/s; 0 measures it, or looks it up")
	f.BoolVar(&o.Ops, "ops", false, "also list the ops of the longest prompts and of decoding at the last position")
	flags.add(c)
	outputFlag(c, &output)
	return c
}

// benchGenerateOptions parses flags that are given as text, and rejects impossible values.
func benchGenerateOptions(c *cobra.Command, o *bench.GenerateOptions, prompts, positions []string) (err error) {
	if o.Prompts, err = parseLengths("--prompts", prompts, 1); err != nil {
		return err
	}
	if o.Positions, err = parseLengths("--positions", positions, 0); err != nil {
		return err
	}
	if o.Tokens, err = parseLength(c.Flags().Lookup("tokens").Value.String()); err != nil {
		return &usageError{fmt.Errorf("--tokens: %w", err)}
	}
	if o.CallTokens, err = parseLength(c.Flags().Lookup("call-tokens").Value.String()); err != nil {
		return &usageError{fmt.Errorf("--call-tokens: %w", err)}
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"rows", o.Rows}, {"decode-steps", o.Steps}, {"runs", o.Runs}} {
		const most = 1 << 20
		if n.value < 1 || n.value > most {
			return &usageError{fmt.Errorf("--%s: must be 1 to %d, is %d", n.flag, most, n.value)}
		}
	}
	if !(o.TFLOPs >= 0 && o.GBs >= 0) || math.IsInf(o.TFLOPs+o.GBs, 0) {
		return &usageError{errors.New("--peak-tflops, --peak-gbs: must be numbers of at least 0")}
	}
	return nil
}

// limit is the text of a machine's limit, which the program doesn't know if it is 0.
func limit(text string, value float64) string {
	if value == 0 {
		return "?"
	}
	return text
}

// percentOf returns a share of a limit; a dash if the limit is unknown.
func percentOf(share float64) string {
	if share == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*share)
}

func generationText(w io.Writer, g *bench.Generation) error {
	fmt.Fprintf(w, "%s on %s\n", g.Name, g.Device)
	fmt.Fprintf(w, "limits (%s): %s, %s\n", g.Limits, limit(metric(1e12*g.TFLOPs)+"FLOP/s", g.TFLOPs), limit(fmt.Sprintf("%.0f GB/s", g.GBs), g.GBs))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(g.Prompts) > 0 {
		fmt.Fprintln(t, "\nprompt\trows\ts\tmin\tmax\ttokens/s\tof compute limit\t")
		for _, p := range g.Prompts {
			fmt.Fprintf(t, "%s\t%d\t%.3f\t%.3f\t%.3f\t%.0f\t%s\t\n", lengthName(p.Length), p.Rows, p.Seconds, p.MinSeconds, p.MaxSeconds, p.TokensPerSecond, percentOf(p.Share))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(g.Decode) > 0 {
		fmt.Fprintln(t, "\nposition\trows\tms per step\ttokens/s\tup to here\tstate MB\tof memory limit\t")
		for _, d := range g.Decode {
			fmt.Fprintf(t, "%s\t%d\t%.3f\t%.0f\t%.0f\t%.1f\t%s\t\n", lengthName(d.Position), d.Rows, d.StepMS, d.TokensPerSecond, d.Until, float64(d.StateBytes)/1e6, percentOf(d.Share))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	aboveText(w, g.Above())
	for _, ops := range []struct {
		of   string
		list []bench.Op
	}{{"the longest prompts", g.PromptOps}, {"decoding at the last position", g.DecodeOps}} {
		if len(ops.list) == 0 {
			continue
		}
		fmt.Fprintf(w, "\nops of %s, a clock between them\n", ops.of)
		if err := opsText(w, ops.list, false); err != nil {
			return err
		}
	}
	return nil
}
