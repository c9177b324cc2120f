package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/evaluate"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newEvalPPL(a *app) *cobra.Command {
	var f evalFlags
	var files []string
	how := data.DefaultConfig().Text
	var texts int
	c := &cobra.Command{
		Use:   "ppl RUN_DIR",
		Short: "Perplexity by context length, and by position",
		Long: `Perplexity of a run's newest good checkpoint on texts of the longest length, read from
beginning to end with carried state: memory grows with the length only for full
attention. The value for length n is the mean over the first n tokens of each text.
lengths.csv has one row per length, positions.csv one per interval of positions, and both
are drawn.

If a signal stops it, the texts read to their end are reported (exit status 75).

Texts are taken from the run's validation split, as one stream of documents, or from
--text files, each cut into texts of the longest length. JSONL, Parquet, Arrow and
compressed files are read as by ` + "`data prepare`" + `; their documents follow one another.` + olderCheckpoint,
		Example: "  sambatrain eval ppl runs/quickstart --lengths 512,1k,2k,4k\n  sambatrain eval ppl runs/samba --lengths 2k,8k,32k,128k,1m --text book.txt --texts 4",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			lengths, err := f.check()
			if err != nil {
				return err
			}
			if texts < 1 {
				return &usageError{fmt.Errorf("--texts: must be at least 1, is %d", texts)}
			}
			longest := lengths[len(lengths)-1] + 1 // the last token has a successor
			return f.measure(c, a, args[0], "ppl", func(ctx context.Context, m *train.Model, dir string) (func() error, error) {
				corpus, err := pplCorpus(ctx, m, files, how, texts, longest)
				if err != nil {
					return nil, err
				}
				r, err := evaluate.MeasurePPL(ctx, m, corpus, evaluate.PPLOptions{
					Lengths: lengths, Rows: f.rows, Chunk: f.chunk, Progress: progress("measuring", "tokens")})
				return func() error { return f.reportPPL(c, m, dir, r) }, err
			})
		},
	}
	f.add(c, "ppl", "2k,4k,8k,16k")
	c.Flags().StringArrayVar(&files, "text", nil, "`file` to read instead of the validation split; may be repeated")
	jsonlFlags(c, &how)
	c.Flags().IntVar(&texts, "texts", 8, "maximum number of texts to read")
	return c
}

// pplCorpus returns at most `texts` texts from the files or, if there are none, from the validation
// split.
func pplCorpus(ctx context.Context, m *train.Model, files []string, how data.TextConfig, texts, length int) (*evaluate.Corpus, error) {
	if len(files) == 0 {
		return evaluate.Split(ctx, m.Recipe.Data, data.Validation, texts, length)
	}
	corpus, err := evaluate.Files(ctx, m.Tokenizer, files, how, texts, length)
	if err != nil {
		return nil, flagNames(err)
	}
	if len(corpus.Unread) > 0 {
		slog.Warn("the other files have enough texts; to read these too, raise --texts", "unread", strings.Join(corpus.Unread, ", "))
	}
	return corpus, nil
}

// reportPPL writes tables and pictures.
func (f *evalFlags) reportPPL(c *cobra.Command, m *train.Model, dir string, r *evaluate.PPL) error {
	columns := []string{"tokens", "loss", "perplexity", "bits_per_byte"}
	row := func(at []string, s evaluate.Score) []string {
		return append(at, strconv.FormatInt(s.Tokens, 10), number(s.Loss), number(s.Perplexity), number(s.BitsPerByte))
	}
	byLength := [][]string{append([]string{"length"}, columns...)}
	byPosition := [][]string{append([]string{"from", "to"}, columns...)}
	lengths := plot.Series{Name: "perplexity of the first tokens", Style: plot.Points}
	positions := plot.Series{Name: "perplexity at the position", Style: plot.Points}
	var ends, middles []int
	for _, l := range r.Lengths {
		byLength = append(byLength, row([]string{strconv.Itoa(l.Length)}, l.Score))
		ends, lengths.Y = append(ends, l.Length), append(lengths.Y, l.Perplexity)
	}
	for _, p := range r.Positions {
		byPosition = append(byPosition, row([]string{strconv.Itoa(p.From), strconv.Itoa(p.To)}, p.Score))
		middles, positions.Y = append(middles, p.To), append(positions.Y, p.Perplexity)
	}
	err := errors.Join(writeTable(filepath.Join(dir, "lengths.csv"), byLength), writeTable(filepath.Join(dir, "positions.csv"), byPosition))
	if err != nil {
		return err
	}
	for _, picture := range []struct {
		name, label string
		at          []int
		series      plot.Series
	}{{"lengths", "context length, tokens", ends, lengths}, {"positions", "position, tokens", middles, positions}} {
		o := plot.Options{Title: m.Recipe.Name, XLabel: picture.label, YLabel: "perplexity"}
		picture.series.X, o.XMarks = logLengths(picture.at)
		if err := plot.Curves(filepath.Join(dir, picture.name+"."+f.format), o, []plot.Series{picture.series}); err != nil {
			return err
		}
	}
	return printResult(c, f.output, r, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "length\ttokens\tloss\tperplexity\tbits per byte\t")
		for _, l := range r.Lengths {
			fmt.Fprintf(t, "%s\t%d\t%.4f\t%.3f\t%.4f\t\n", lengthName(l.Length), l.Tokens, l.Loss, l.Perplexity, l.BitsPerByte)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\n%s, %s tokens/s, state %.1f MB, peak memory %.0f MB\ntables and pictures: %s\n",
			count(int64(r.Texts), "text"), runlog.Thousands(r.TokensPerSecond), float64(r.StateBytes)/1e6, float64(r.PeakRSS)/1e6, dir)
		return err
	})
}
