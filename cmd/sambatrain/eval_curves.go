package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/shell"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newEvalCurves() *cobra.Command {
	var out, name string
	c := &cobra.Command{
		Use:   "curves RUN_DIR...",
		Short: "Compare the `eval ppl` results of several runs",
		Long: `Draw the bits per byte by context length of several runs, as written by ` + "`eval ppl`" + ` to
RUN_DIR/eval/ppl, in one picture, and print them as a markdown table. --name is another
folder of RUN_DIR/eval, written by ` + "`eval ppl --out`" + `. Runs are labeled with the names of
their recipes, or with their folders where two have the same recipe.`,
		Example: "  sambatrain eval curves runs/samba runs/llama --out ppl.png",
		Args:    atLeastOneArg("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			var curves []lengthCurve
			var names []string
			for _, run := range args {
				curve, err := readCurve(run, name)
				if err != nil {
					return err
				}
				curves = append(curves, curve)
				names = append(names, curve.name)
			}
			for i, name := range distinct(names, args) {
				curves[i].name = name
			}
			if err := drawCurves(out, curves); err != nil {
				return err
			}
			slog.Info("drawn", "picture", out)
			return curvesTable(c.OutOrStdout(), curves)
		},
	}
	c.Flags().StringVar(&out, "out", "ppl.png", "picture to write: .png or .svg")
	c.Flags().StringVar(&name, "name", "ppl", "folder of RUN_DIR/eval that has the results")
	return c
}

// distinct makes names distinct: those that occur several times are replaced by their places, such
// as folders.
func distinct(names, places []string) []string {
	times := map[string]int{}
	for _, name := range names {
		times[name]++
	}
	list := slices.Clone(names)
	for i, name := range list {
		if times[name] > 1 {
			list[i] = filepath.Clean(places[i])
		}
	}
	return list
}

// lengthCurve holds a run's results by context length.
type lengthCurve struct {
	name    string
	lengths []int
	bits    []float64
}

func readCurve(run, name string) (lengthCurve, error) {
	c := lengthCurve{name: filepath.Base(run)}
	if r, err := train.LoadConfig(run); err == nil {
		c.name = r.Name
	}
	path := filepath.Join(run, "eval", name, "lengths.csv")
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("%w; measure the run with `%s`", err, shell.Command("sambatrain", "eval", "ppl", run))
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	for i, row := range rows[min(1, len(rows)):] {
		n, err := strconv.Atoi(row[0])
		bits, err2 := strconv.ParseFloat(row[len(row)-1], 64)
		if err != nil || err2 != nil || len(c.lengths) > 0 && n <= c.lengths[len(c.lengths)-1] {
			return c, fmt.Errorf("%s:%d: not a line that `eval ppl` writes", path, i+2)
		}
		c.lengths, c.bits = append(c.lengths, n), append(c.bits, bits)
	}
	if len(c.lengths) == 0 {
		return c, fmt.Errorf("%s: holds no length", path)
	}
	return c, nil
}

// union returns all lengths of all curves.
func union(curves []lengthCurve) []int {
	var all []int
	for _, c := range curves {
		all = append(all, c.lengths...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func drawCurves(path string, curves []lengthCurve) error {
	o := plot.Options{XLabel: "context length, tokens", YLabel: "bits per byte"}
	_, o.XMarks = logLengths(union(curves))
	var series []plot.Series
	for _, c := range curves {
		s := plot.Series{Name: c.name, Style: plot.Points, Y: c.bits}
		s.X, _ = logLengths(c.lengths)
		series = append(series, s)
	}
	return plot.Curves(path, o, series)
}

func curvesTable(w io.Writer, curves []lengthCurve) error {
	head, line := "| length |", "|---|"
	for _, c := range curves {
		head, line = head+" "+c.name+" |", line+"---|"
	}
	text := head + "\n" + line + "\n"
	for _, n := range union(curves) {
		text += "| " + lengthName(n) + " |"
		for _, c := range curves {
			value := "-"
			if i := slices.Index(c.lengths, n); i >= 0 {
				value = fmt.Sprintf("%.4f", c.bits[i])
			}
			text += " " + value + " |"
		}
		text += "\n"
	}
	_, err := io.Copy(w, strings.NewReader(text))
	return err
}
