package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/bench"
	"github.com/sambatrain/sambatrain/internal/shell"
)

// benchFlags are the flags of bench.
type benchFlags struct {
	recipe  recipeFlags
	output  outputForm
	options bench.Options
	threads []int // numbers of threads to compare
}

func newBench(a *app) *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench [RECIPE]",
		Short: "Time a recipe's training step on this machine",
		Long: `Time a recipe's training step (default: quickstart) on random tokens: tokens per
second, model FLOPs utilization, memory, and the time, share and rate of each op,
compared with the peak of this machine, which is measured too, in turns with the steps.

--profile writes a CPU profile of as many more steps for ` + "`go tool pprof`" + `, and a trace of one,
by call and by worker, for ui.perfetto.dev.`,
		Example: `  sambatrain bench
  sambatrain bench samba-30m --runs 5 --profile profile
  sambatrain bench samba-30m --compare-threads 1,2`,
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
			return a.bench(c, name, f)
		},
	}
	c.Flags().IntVar(&f.options.Steps, "runs", 10, "number of steps to time")
	c.Flags().StringVar(&f.options.Profile, "profile", "", "folder to write "+bench.ProfileFile+" and "+bench.TraceFile+" to")
	c.Flags().IntSliceVar(&f.threads, "compare-threads", nil, "time the step with these `numbers` of CPU workers in turn, as in 1,2")
	f.recipe.add(c)
	outputFlag(c, &f.output)
	c.AddCommand(newBenchGenerate(a), newBenchCurves())
	return c
}

// bench times a recipe's training step, once or with several numbers of threads.
func (a *app) bench(c *cobra.Command, recipe string, f benchFlags) error {
	if f.options.Steps < 1 {
		return &usageError{fmt.Errorf("--runs: must be at least 1, is %d", f.options.Steps)}
	}
	if f.threads != nil {
		if err := checkComparison(c, f.threads); err != nil {
			return err
		}
	}
	r, err := f.recipe.load(c, recipe)
	if err != nil {
		return err
	}
	if f.options.Log, err = a.logger(); err != nil {
		return err
	}
	if f.threads != nil {
		s, err := bench.RunThreads(r, f.threads, f.options.Steps, f.options.Log)
		if err != nil {
			return err
		}
		return printResult(c, f.output, s, func(w io.Writer) error { return threadsText(w, s) })
	}
	b, err := bench.Run(r, f.options)
	if err != nil {
		return err
	}
	return printResult(c, f.output, b, func(w io.Writer) error { return benchText(w, b) })
}

// checkComparison rejects numbers of threads that don't make a comparison.
func checkComparison(c *cobra.Command, threads []int) error {
	for _, flag := range []string{"threads", "profile"} {
		if c.Flags().Changed(flag) {
			return &usageError{fmt.Errorf("--%s: can't be given along with --compare-threads", flag)}
		}
	}
	for _, n := range threads {
		if n < 1 {
			return &usageError{fmt.Errorf("--compare-threads: must be numbers of at least 1, as in 1,2, is %d", n)}
		}
		if err := checkThreads(n); err != nil {
			return err
		}
	}
	if len(threads) < 2 {
		return &usageError{errors.New("--compare-threads: give two numbers or more, as in 1,2")}
	}
	return nil
}

func benchText(w io.Writer, b *bench.Result) error {
	fmt.Fprintf(w, "%s on %s\n\n", b.Name, b.Device)
	fmt.Fprintf(w, "step    %s: %d rows of %d tokens, %d at a time\n", stepTime(b.Step), b.Rows, b.SeqLen, b.Rows/b.MicroBatches)
	fmt.Fprintf(w, "speed   %.0f tokens/s, %sFLOP/s of the model's work, in %s\n", b.TokensPerSecond, metric(1e9*b.ModelGFLOPs), b.Precision)
	if p := b.Peak; p != nil {
		fmt.Fprintf(w, "MFU     %.1f%% of the %sFLOP/s that float32 multiply-adds in registers reach; memory reads %.1f GB/s, triad %.1f GB/s\n",
			100*b.MFU, metric(1e9*p.GFLOPs), p.ReadGBs, p.TriadGBs)
	}
	fmt.Fprintf(w, "memory  %s", memoryText(b.Memory))
	if b.Recomputed > 0 {
		fmt.Fprintf(w, ", %d calls recomputed to fit run.memory_budget", b.Recomputed)
	}
	if b.PeakRSS > 0 {
		fmt.Fprintf(w, "; the process had %sB at most", metric(float64(b.PeakRSS)))
	}
	fmt.Fprint(w, "\n\n")
	if err := opsText(w, b.Ops, b.Peak != nil); err != nil {
		return err
	}
	aboveText(w, b.Above())
	if len(b.Files) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nprofile go tool pprof -http : %s\ntrace   open %s in ui.perfetto.dev or chrome://tracing\n", shell.Quote(b.Files[0]), b.Files[1])
	return err
}

// opsText writes a table of ops, with the fraction of the machine's limits that they reach, if
// these are known.
func opsText(w io.Writer, ops []bench.Op, limits bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "op\tcalls\tms\tshare\tGFLOP/s\tGB/s\t")
	if limits {
		fmt.Fprint(t, "of the limit\t")
	}
	fmt.Fprintln(t)
	for _, o := range ops {
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%.1f%%\t%.1f\t%.1f\t", o.Op, o.Calls, o.MS, 100*o.Share, o.GFLOPs, o.GBs)
		if limits {
			fmt.Fprintf(t, "%.0f%%\t", 100*o.PeakShare)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// aboveText writes why shares of limits are above 100%.
func aboveText(w io.Writer, notes []string) {
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	}
}

// stepTime returns a step's median and spread.
func stepTime(s bench.Step) string {
	return fmt.Sprintf("%.1f ms (median of %d; %.1f to %.1f)", s.StepMS, s.Steps, s.MinStepMS, s.MaxStepMS)
}

func threadsText(w io.Writer, s *bench.Scaling) error {
	first := s.Threads[0]
	device := strings.Replace(first.Device, fmt.Sprintf("%d threads, ", first.Threads), "", 1) // the number of threads is in the table
	fmt.Fprintf(w, "%s on %s: %d rows of %d tokens\n\n", s.Name, device, first.Rows, first.SeqLen)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "threads\tstep\ttokens/s\tspeed-up (median of rounds)\t")
	for _, n := range s.Threads {
		fmt.Fprintf(t, "%d\t%s\t%.0f\t%.2f (%.2f to %.2f)\t\n", n.Threads, stepTime(n.Step), n.TokensPerSecond, n.Speedup, n.MinSpeedup, n.MaxSpeedup)
	}
	return t.Flush()
}
