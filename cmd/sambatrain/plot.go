package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

func newPlot() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "plot RUN_DIR...",
		Short: "Draw runs' loss curves",
		Long: `Draw a run's training and validation loss in bits per byte over its steps, or the
validation losses of several runs over their training tokens, as PNG or SVG by the file's
extension. A run in progress is drawn up to its last step.`,
		Example: "  sambatrain plot runs/quickstart --out loss.svg\n  sambatrain plot runs/a runs/b --out both.png",
		Args:    atLeastOneArg("RUN_DIR"),
		RunE: func(c *cobra.Command, dirs []string) error {
			if out == "" && len(dirs) > 1 {
				return &usageError{errors.New("--out: name the picture of several runs")}
			}
			draw := runCurves
			if len(dirs) > 1 {
				draw = severalCurves
			}
			o, series, err := draw(c.ErrOrStderr(), dirs)
			if err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(dirs[0], "loss.png")
			}
			if err := plot.Curves(out, o, series); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), out)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "picture to write: .png or .svg (default RUN_DIR/loss.png for a single run)")
	return c
}

// metricsOf returns a run's recipe and records. An incomplete last line is reported on w.
func metricsOf(w io.Writer, dir string) (*recipes.Recipe, []runlog.Record, error) {
	r, err := train.LoadConfig(dir)
	if err != nil {
		return nil, nil, err
	}
	records, torn, err := runlog.Read(filepath.Join(dir, train.MetricsFile))
	if torn != nil {
		fmt.Fprintln(w, torn)
	}
	return r, records, err
}

// runCurves returns the curves of the single run in dirs.
func runCurves(w io.Writer, dirs []string) (plot.Options, []plot.Series, error) {
	r, records, err := metricsOf(w, dirs[0])
	if err != nil {
		return plot.Options{}, nil, err
	}
	o := plot.Options{Title: r.Name, XLabel: "step", YLabel: "bits per byte", CutTop: true}
	series := lossCurves(records)
	if series == nil {
		return o, nil, fmt.Errorf("%s: no training steps yet, nothing to draw", filepath.Join(dirs[0], train.MetricsFile))
	}
	if bits := unigramOf(r, dirs[0]); bits > 0 {
		o.References = []plot.Reference{{Label: "byte unigram", Y: bits}}
	}
	return o, series, nil
}

// unigramOf returns the bits per byte of a byte-unigram model: those of a finished run's result, or
// those of its shards. It is 0 if neither is here, or none was counted.
func unigramOf(r *recipes.Recipe, dir string) float64 {
	var result train.Result
	if text, err := os.ReadFile(filepath.Join(dir, train.ResultFile)); err == nil && json.Unmarshal(text, &result) == nil && result.UnigramBitsPerByte > 0 {
		return result.UnigramBitsPerByte
	}
	if m, err := data.ReadManifest(r.Data.Shards); err == nil {
		if bits, ok := m.UnigramBitsPerByte(); ok {
			return bits
		}
	}
	return 0
}

// severalCurves returns the validation losses of the runs in dirs, each named after its folder.
func severalCurves(w io.Writer, dirs []string) (plot.Options, []plot.Series, error) {
	o := plot.Options{Title: "Validation loss", XLabel: "tokens", YLabel: "bits per byte", CutTop: true}
	var series []plot.Series
	for _, dir := range dirs {
		_, records, err := metricsOf(w, dir)
		if err != nil {
			return o, nil, err
		}
		s := plot.Series{Name: filepath.Clean(dir), Style: plot.Points}
		tokens := 0.0
		for _, r := range records {
			switch r.Kind {
			case runlog.KindTrain:
				tokens = float64(r.Train.Tokens)
			case runlog.KindVal:
				s.X, s.Y = append(s.X, tokens), append(s.Y, r.Val.BitsPerByte)
			}
		}
		if len(s.X) == 0 {
			return o, nil, fmt.Errorf("%s: no validation yet, nothing to draw", filepath.Join(dir, train.MetricsFile))
		}
		series = append(series, s)
	}
	return o, series, nil
}

// lossCurves returns the training loss and the validation losses, one for each row length, over the
// steps; nil before the first step.
func lossCurves(records []runlog.Record) []plot.Series {
	trained := plot.Series{Name: "training", Style: plot.Line}
	var validated []plot.Series // by increasing row length
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
