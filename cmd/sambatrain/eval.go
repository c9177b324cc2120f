package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/evaluate"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/internal/wholefile"
)

func newEval(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "eval",
		Short: "Measure a trained model on long texts",
	}
	c.AddCommand(newEvalPPL(a), newEvalPasskey(a), newEvalPhonebook(a), newEvalCurves())
	return c
}

// evalFlags are the flags that all measurements share.
type evalFlags struct {
	model       modelFlags
	lengths     []string
	rows, chunk int
	out, format string
	output      outputForm
}

func (f *evalFlags) add(c *cobra.Command, name, lengths string) {
	c.Flags().StringSliceVar(&f.lengths, "lengths", strings.Split(lengths, ","), "context `lengths` in tokens, ascending; 4k is 4096, 1m 1048576")
	c.Flags().IntVar(&f.rows, "rows", 1, "number of texts read together")
	c.Flags().IntVar(&f.chunk, "chunk", generate.DefaultChunk, "number of tokens of a text computed at once")
	c.Flags().StringVar(&f.out, "out", "", "folder for tables and pictures (default RUN_DIR/eval/"+name+")")
	c.Flags().StringVar(&f.format, "picture", "png", "picture format: png or svg")
	offer(c, "picture", []string{"png", "svg"})
	f.model.add(c)
	outputFlag(c, &f.output)
}

// check returns the lengths.
func (f *evalFlags) check() ([]int, error) {
	if f.format != "png" && f.format != "svg" {
		return nil, &usageError{fmt.Errorf("--picture: must be png or svg, is %q", f.format)}
	}
	if f.rows < 1 || f.chunk < 1 {
		return nil, &usageError{fmt.Errorf("--rows, --chunk: must be at least 1, are %d and %d", f.rows, f.chunk)}
	}
	lengths, err := parseLengths("--lengths", f.lengths, 1)
	if err == nil && len(lengths) == 0 {
		err = &usageError{errors.New("--lengths: names no length")}
	}
	return lengths, err
}

// measure loads a run's model, makes the folder for the results, and measures the model until a
// signal arrives. Partial results are reported as well.
func (f *evalFlags) measure(c *cobra.Command, a *app, run, name string, measure func(ctx context.Context, m *train.Model, dir string) (report func() error, err error)) error {
	m, err := f.model.load(a, run)
	if err != nil {
		return err
	}
	defer m.Close()
	dir, err := f.folder(run, name)
	if err != nil {
		return err
	}
	tidy, err := makeFolder(dir)
	if err != nil {
		return err
	}
	defer tidy()
	ctx, stop := untilSignal(c.Context(), nil)
	defer stop()
	report, err := measure(ctx, m, dir)
	var stopped *evaluate.Stopped
	if err != nil && !errors.As(err, &stopped) {
		return err
	}
	return errors.Join(report(), err)
}

// retrievalFlags are the flags that measurements of recall share.
type retrievalFlags struct {
	samples int
	seed    uint64
}

func (f *retrievalFlags) add(c *cobra.Command, samples int) {
	c.Flags().IntVar(&f.samples, "samples", samples, "number of questions per cell")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "seed of the questions")
}

func (f *retrievalFlags) options(e *evalFlags) (evaluate.RetrievalOptions, error) {
	o := evaluate.RetrievalOptions{Samples: f.samples, Seed: f.seed, Rows: e.rows, Chunk: e.chunk,
		Progress: progress("measuring", "questions")}
	if f.samples < 1 {
		return o, &usageError{fmt.Errorf("--samples: must be at least 1, is %d", f.samples)}
	}
	return o, nil
}

// parseLength parses a number of tokens: 3000, 4k or 1m.
func parseLength(s string) (int, error) {
	digits, unit := s, 1
	switch {
	case strings.HasSuffix(strings.ToLower(s), "k"):
		digits, unit = s[:len(s)-1], 1<<10
	case strings.HasSuffix(strings.ToLower(s), "m"):
		digits, unit = s[:len(s)-1], 1<<20
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > generate.MaxPositions/unit-1 {
		return 0, fmt.Errorf("%q is not a number of tokens such as 3000, 4k or 1m", s)
	}
	return n * unit, nil
}

// parseLengths parses increasing numbers of tokens, the first of which must be at least `least`.
func parseLengths(flag string, names []string, least int) ([]int, error) {
	var list []int
	for _, s := range names {
		n := 0
		if s != "0" || least > 0 {
			var err error
			if n, err = parseLength(s); err != nil {
				return nil, &usageError{fmt.Errorf("%s: %w", flag, err)}
			}
		}
		if len(list) > 0 && n <= list[len(list)-1] {
			return nil, &usageError{fmt.Errorf("%s: must rise, but %s comes after %s", flag, s, lengthName(list[len(list)-1]))}
		}
		list = append(list, n)
	}
	return list, nil
}

// lengthName writes a number of tokens in the form that parseLength reads.
func lengthName(n int) string {
	switch {
	case n == 0:
		return "0"
	case n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + "m"
	case n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + "k"
	}
	return strconv.Itoa(n)
}

// folder returns the folder for results: that of a run. For one of its checkpoints it also contains
// the checkpoint's name.
func (f *evalFlags) folder(run, name string) (string, error) {
	dir := f.out
	if dir == "" {
		of := run
		if checkpoint.Is(run) {
			in, step, err := checkpoint.RunOf(run)
			if err != nil {
				return "", err
			}
			of, name = in, name+"-"+step
			if _, err := train.LoadConfig(of); err != nil {
				return "", &usageError{fmt.Errorf("--out: name a folder for the results; %s is not in a run", run)}
			}
		}
		dir = filepath.Join(of, "eval", name)
	}
	return dir, nil
}

// writeTable writes a CSV file.
func writeTable(path string, rows [][]string) error {
	var text bytes.Buffer
	if err := csv.NewWriter(&text).WriteAll(rows); err != nil {
		return err
	}
	return wholefile.Write(path, text.Bytes())
}

// number formats a number for a table.
func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

// logLengths returns lengths as positions on a picture's axis, one step per doubling, and its
// marks.
func logLengths(lengths []int) (x []float64, marks []plot.Mark) {
	for _, n := range lengths {
		x = append(x, math.Log2(float64(n)))
	}
	for e := math.Floor(x[0]); e <= x[len(x)-1]+1e-9; e++ {
		if e >= x[0]-1e-9 {
			marks = append(marks, plot.Mark{X: e, Label: lengthName(1 << int(e))})
		}
	}
	return x, marks
}

// progress logs the progress of slow work every few seconds, from now on: how many `what` are done.
func progress(doing, what string) func(done, total int64) {
	started := time.Now()
	last := started
	return func(done, total int64) {
		now := time.Now()
		if now.Sub(last) < 5*time.Second || done == 0 {
			return
		}
		last = now
		left := time.Duration(float64(now.Sub(started)) / float64(done) * float64(total-done))
		slog.Info(doing, what, done, "of", total, "eta", left.Round(time.Second))
	}
}
