package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newPlot() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:     "plot RUN_DIR",
		Short:   "Draw a run's loss curves",
		Long:    "Draw a run's training and validation loss in bits per byte, as PNG or SVG by the\nfile's extension.",
		Example: "  sambatrain plot runs/quickstart --out loss.svg",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			dir := args[0]
			r, err := train.LoadConfig(dir)
			if err != nil {
				return err
			}
			records, torn, err := runlog.Read(filepath.Join(dir, train.MetricsFile))
			if err != nil {
				return err
			}
			if torn != nil {
				fmt.Fprintln(c.ErrOrStderr(), torn)
			}
			series := lossCurves(records)
			if series == nil {
				return fmt.Errorf("%s: no training steps yet, nothing to draw", filepath.Join(dir, train.MetricsFile))
			}
			o := plot.Options{Title: r.Name, XLabel: "step", YLabel: "bits per byte", CutTop: true}
			// The shards may have stayed on another machine; then there is no line to compare with.
			if m, err := data.ReadManifest(r.Data.Shards); err == nil {
				if bits, ok := m.UnigramBitsPerByte(); ok {
					o.References = []plot.Reference{{Label: "byte unigram", Y: bits}}
				}
			}
			if out == "" {
				out = filepath.Join(dir, "loss.png")
			}
			if err := plot.Curves(out, o, series); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), out)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "picture to write: .png or .svg (default RUN_DIR/loss.png)")
	return c
}

// lossCurves are the training loss and the validation losses, one for each row length,
// over the steps; nil before the first step.
func lossCurves(records []runlog.Record) []plot.Series {
	trained := plot.Series{Name: "training", Style: plot.Line}
	var validated []plot.Series // by rising row length
	add := func(times, step int, bitsPerByte float64) {
		name := "validation"
		if times > 1 {
			name = fmt.Sprintf("validation @%dx", times)
		}
		i := slices.IndexFunc(validated, func(s plot.Series) bool { return s.Name == name })
		if i < 0 {
			i = len(validated)
			validated = append(validated, plot.Series{Name: name, Style: plot.Points})
		}
		s := &validated[i]
		s.X, s.Y = append(s.X, float64(step)), append(s.Y, bitsPerByte)
	}
	for _, r := range records {
		switch r.Kind {
		case runlog.KindTrain:
			trained.X, trained.Y = append(trained.X, float64(r.Step)), append(trained.Y, r.Train.BitsPerByte)
		case runlog.KindVal:
			add(1, r.Step, r.Val.BitsPerByte)
			for _, at := range r.Val.Longer {
				add(at.Times, r.Step, at.BitsPerByte)
			}
		}
	}
	if len(trained.X) == 0 {
		return nil
	}
	trained.Smooth = plot.SmoothFor(len(trained.X))
	return append([]plot.Series{trained}, validated...)
}
