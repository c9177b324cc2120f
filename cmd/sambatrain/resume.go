package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sambatrain/sambatrain/internal/train"
)

func newResume(a *app) *cobra.Command {
	var sets []string
	var allowDataChange bool
	var processes processFlags
	var output outputForm
	c := &cobra.Command{
		Use:   "resume RUN_DIR",
		Short: "Continue a run from its newest good checkpoint",
		Long: `Continue a run from its newest good checkpoint. The result is the same, bit for
bit, as if the run had never stopped. A damaged checkpoint is detected by its checksums,
reported and skipped.

--set changes the run's recipe from this step on: later resumes keep the change. Only keys
of run., which say where and how to run, hold for this command alone. Both are recorded in
metrics.jsonl.

Different shards, or another data.mixture or data.seed, would change the batches and are
refused unless --allow-data-change is given. The run then continues with the batch that
the new data has at this step, so some rows may be repeated or left out.`,
		Example: "  sambatrain resume runs/quickstart\n  sambatrain resume runs/quickstart --set train.steps=1000 --set run.threads=1",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkSets(sets); err != nil {
				return err
			}
			r, err := train.LoadConfig(args[0], sets...)
			if err != nil {
				return (&recipeFlags{sets: sets}).flagNames(c, err)
			}
			return a.train(c, processes, r.Run.Device, output, func(o train.Options) (*train.Result, error) {
				ctx, stop := untilSignal(c.Context(), o.Log)
				defer stop()
				o.AllowDataChange = allowDataChange
				return train.Resume(ctx, args[0], o, sets...)
			})
		},
	}
	c.Flags().StringArrayVar(&sets, "set", nil, "change a key of the run's recipe, as `key=value`; may be repeated")
	c.Flags().BoolVar(&allowDataChange, "allow-data-change", false, "continue even if the data, data.mixture or data.seed has changed")
	processes.add(c)
	outputFlag(c, &output)
	return c
}

// resumeFlags returns the flags given to c that resume has too, as words of a command line. The
// recipe's are left out, because they are in the run, and those that train.Resume takes one by one.
func resumeFlags(c *cobra.Command) []string {
	resume, _, err := newRoot().Find([]string{"resume"})
	if err != nil {
		panic(err) // there is no such command
	}
	var words []string
	c.Flags().Visit(func(given *pflag.Flag) {
		value := given.Value.String()
		switch f := resume.Flag(given.Name); {
		case given.Name == "set", given.Name == "allow-data-change":
		case f == nil, f.Value.Set(value) != nil: // such as --output markdown
		default:
			words = append(words, "--"+f.Name, value)
		}
	})
	return words
}
