package main

import (
	"fmt"
	"path/filepath"

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
			trained := plot.Series{Name: "training", Style: plot.Line}
			validated := plot.Series{Name: "validation", Style: plot.Points}
			for _, rec := range records {
				switch rec.Kind {
				case runlog.KindTrain:
					trained.X, trained.Y = append(trained.X, float64(rec.Step)), append(trained.Y, rec.Train.BitsPerByte)
				case runlog.KindVal:
					validated.X, validated.Y = append(validated.X, float64(rec.Step)), append(validated.Y, rec.Val.BitsPerByte)
				}
			}
			if len(trained.X) == 0 {
				return fmt.Errorf("%s: no training steps yet, nothing to draw", filepath.Join(dir, train.MetricsFile))
			}
			trained.Smooth = plot.SmoothFor(len(trained.X))
			series := []plot.Series{trained}
			if len(validated.X) > 0 {
				series = append(series, validated)
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
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), out)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "picture to write: .png or .svg (default RUN_DIR/loss.png)")
	return c
}
