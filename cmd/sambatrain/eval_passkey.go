package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/evaluate"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/train"
)

// mostDepths is the largest number of depths: each is a row of the heat map.
const mostDepths = 1000

func newEvalPasskey(a *app) *cobra.Command {
	var f evalFlags
	var q retrievalFlags
	var depths int
	c := &cobra.Command{
		Use:   "passkey RUN_DIR",
		Short: "Passkey retrieval in long documents, by length and depth",
		Long: `Ask a run's newest good checkpoint for a five-digit number hidden in a document of filler
(arXiv 2305.16300), at depths from 0, the beginning, to 1, the end. Greedy decoding must
produce exactly that number. scores.csv has one row per length and depth, and heat.png is
the heat map. The questions depend only on the seed, the length and the depth. Models
learn the task from a recipe with data.generate; see
` + "`sambatrain finetune --help`" + `.` + olderCheckpoint,
		Example: "  sambatrain eval passkey runs/samba-passkey --lengths 4k,8k,16k,32k,64k,128k,256k",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			lengths, err := f.check()
			if err != nil {
				return err
			}
			if depths < 2 || depths > mostDepths {
				return &usageError{fmt.Errorf("--depths: must be 2 to %d, is %d", mostDepths, depths)}
			}
			o, err := q.options(&f)
			if err != nil {
				return err
			}
			var at []float64
			for i := range depths {
				at = append(at, float64(i)/float64(depths-1))
			}
			return f.measure(c, a, args[0], "passkey", func(ctx context.Context, m *train.Model, dir string) (func() error, error) {
				r, err := evaluate.Passkey(ctx, m, lengths, at, o)
				return func() error { return f.reportPasskey(c, m.Recipe.Name, dir, at, r) }, err
			})
		},
	}
	f.add(c, "passkey", "1k,2k,4k,8k")
	q.add(c, 5)
	c.Flags().IntVar(&depths, "depths", 11, "number of depths, from 0 to 1")
	return c
}

func (f *evalFlags) reportPasskey(c *cobra.Command, name, dir string, depths []float64, r *evaluate.Retrieval) error {
	table := [][]string{{"length", "depth", "asked", "right", "share"}}
	heat := plot.Heat{Title: name + ": passkeys found, %", XLabel: "document length, tokens", YLabel: "depth of the key",
		Values: make([][]float64, len(depths))}
	for _, d := range depths {
		heat.Rows = append(heat.Rows, depthName(d))
	}
	columns := slices.Collect(slices.Chunk(r.Cells, len(depths))) // the last one is shorter if it was stopped
	for _, column := range columns {
		heat.Columns = append(heat.Columns, lengthName(column[0].Length))
		for i := range depths {
			share := math.NaN()
			if i < len(column) {
				share = column[i].Share()
			}
			heat.Values[i] = append(heat.Values[i], share)
		}
	}
	for _, cell := range r.Cells {
		table = append(table, []string{strconv.Itoa(cell.Length), number(cell.Depth), strconv.Itoa(cell.Asked), strconv.Itoa(cell.Right), number(cell.Share())})
	}
	if err := writeTable(filepath.Join(dir, "scores.csv"), table); err != nil {
		return err
	}
	if err := plot.HeatMap(filepath.Join(dir, "heat."+f.format), heat); err != nil {
		return err
	}
	return printResult(c, f.output, r, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "length\tasked\tright\tworst depth\t")
		for _, column := range columns {
			all := evaluate.Total(column)
			worst := slices.MinFunc(column, func(a, b evaluate.Cell) int { return cmp.Compare(a.Share(), b.Share()) })
			fmt.Fprintf(t, "%s\t%d\t%.1f%%\t%s (%.0f%%)\t\n", lengthName(column[0].Length), all.Asked, 100*all.Share(), depthName(worst.Depth), 100*worst.Share())
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\ntable and picture: %s\n", dir)
		return err
	})
}

func depthName(d float64) string { return number(math.Round(100*d) / 100) }
