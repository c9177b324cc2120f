package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/internal/verify"
	"github.com/sambatrain/sambatrain/recipes"
)

func newVerify(a *app) *cobra.Command {
	var output outputForm
	run := recipes.Defaults().Run
	c := &cobra.Command{
		Use:   "verify FILE|DIR...",
		Short: "Check this build's numerics against fixtures",
		Long: `Check this build's numerics against fixtures: safetensors files with a small
model's parameters, and the logits, loss, gradients and first AdamW steps that an
independent float64 program computed. Prints one row a file with the largest
relative errors, and how many sublayers were in float32 (run.float32_sublayers). Exit
status 1 if any fails.`,
		Example: "  sambatrain verify internal/verify/testdata",
		Args:    atLeastOneArg("file or folder"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := run.Validate(); err != nil {
				return &usageError{flagNames(err)}
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			dev, err := train.NewDevice(run, log)
			if err != nil {
				return flagNames(err)
			}
			defer dev.Close()
			var reports []verify.Report
			failed := 0
			for _, path := range args {
				files, err := verify.Files(path)
				if err != nil {
					return err
				}
				for _, file := range files {
					r := verify.Run(dev, file, run)
					if !r.Pass {
						failed++
					}
					reports = append(reports, r)
				}
			}
			if err := printResult(c, output, reports, func(w io.Writer) error { return verifyTable(w, reports) }); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("verify: %d of %d files fail: %w", failed, len(reports), errReported)
			}
			return nil
		},
	}
	c.Flags().StringVar(&run.Device, "device", run.Device, "device to compute on: "+strings.Join(recipes.Devices, ", "))
	c.Flags().StringVar(&run.DType, "dtype", run.DType, "precision: "+strings.Join(recipes.DTypes, ", "))
	offer(c, "device", recipes.Devices)
	offer(c, "dtype", recipes.DTypes)
	c.Flags().Var(&run.Float32Sublayers, "float32-sublayers", "number of first sublayers that bfloat16 leaves in float32")
	c.Flags().IntVar(&run.Threads, "threads", 0, "number of CPU workers; 0 means one per core")
	outputFlag(c, &output)
	return c
}

func verifyTable(w io.Writer, reports []verify.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fixture\tlogits\tloss\tgradients\tsteps\tparameters\tfloat32\tresult")
	for _, r := range reports {
		name := filepath.Base(r.File)
		switch {
		case r.Error != "":
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t-\tFAIL: %s\n", name, r.Error)
		case r.Pass:
			fmt.Fprintf(t, "%s\t%.1e\t%.1e\t%.1e\t%.1e\t%.1e\t%d of %d\tpass\n", name, r.Logits, r.Loss, r.Gradients, r.Steps, r.Parameters, r.Float32Sublayers, r.Sublayers)
		default:
			fmt.Fprintf(t, "%s\t%.1e\t%.1e\t%.1e\t%.1e\t%.1e\t%d of %d\tFAIL: %s (worst gradient: %s)\n", name, r.Logits, r.Loss, r.Gradients, r.Steps, r.Parameters, r.Float32Sublayers, r.Sublayers, r.Beyond, r.Worst)
		}
	}
	return t.Flush()
}
