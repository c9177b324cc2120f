package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/evaluate"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newEvalPhonebook(a *app) *cobra.Command {
	var f evalFlags
	var q retrievalFlags
	var entries []int
	c := &cobra.Command{
		Use:   "phonebook RUN_DIR",
		Short: "Phone book lookup, by the size of the book",
		Long: `Ask a run's newest good checkpoint for the number of one name in a phone book, after two
examples (arXiv 2402.01032). Greedy decoding must produce exactly that number on the first
line. scores.csv has one row per size, and scores.png shows them.` + olderCheckpoint,
		Example: "  sambatrain eval phonebook runs/samba-phonebook --entries 20,60,120,240,480",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("lengths") {
				return &usageError{errors.New("--lengths: books are as long as their --entries make them")}
			}
			f.lengths = []string{"1"}
			if _, err := f.check(); err != nil {
				return err
			}
			for i, n := range entries {
				if n < 3 || n > data.MaxEntries || i > 0 && n <= entries[i-1] {
					return &usageError{fmt.Errorf("--entries: must rise, from 3 to %d at most, are %v", data.MaxEntries, entries)}
				}
			}
			o, err := q.options(&f)
			if err != nil {
				return err
			}
			return f.measure(c, a, args[0], "phonebook", func(ctx context.Context, m *train.Model, dir string) (func() error, error) {
				r, err := evaluate.Phonebook(ctx, m, entries, o)
				return func() error { return f.reportPhonebook(c, m.Recipe.Name, dir, r) }, err
			})
		},
	}
	f.add(c, "phonebook", "")
	c.Flags().Lookup("lengths").Hidden = true
	q.add(c, 20)
	c.Flags().IntSliceVar(&entries, "entries", []int{20, 40, 80, 160, 320, 480}, "`sizes` of the book, ascending")
	return c
}

func (f *evalFlags) reportPhonebook(c *cobra.Command, name, dir string, r *evaluate.Retrieval) error {
	table := [][]string{{"entries", "tokens", "asked", "right", "share"}}
	s := plot.Series{Name: "numbers found", Style: plot.Points}
	for _, cell := range r.Cells {
		table = append(table, []string{strconv.Itoa(cell.Entries), strconv.Itoa(cell.Length), strconv.Itoa(cell.Asked), strconv.Itoa(cell.Right), number(cell.Share())})
		s.X, s.Y = append(s.X, float64(cell.Entries)), append(s.Y, 100*cell.Share())
	}
	err := errors.Join(writeTable(filepath.Join(dir, "scores.csv"), table),
		plot.Curves(filepath.Join(dir, "scores."+f.format), plot.Options{Title: name, XLabel: "entries of the book", YLabel: "numbers found, %", Percent: true}, []plot.Series{s}))
	if err != nil {
		return err
	}
	return printResult(c, f.output, r, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "entries\ttokens\tasked\tright\t")
		for _, cell := range r.Cells {
			fmt.Fprintf(t, "%d\t%d\t%d\t%.1f%%\t\n", cell.Entries, cell.Length, cell.Asked, 100*cell.Share())
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\ntable and picture: %s\n", dir)
		return err
	})
}
