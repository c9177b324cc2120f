package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/plainjson"
	"github.com/sambatrain/sambatrain/internal/plot"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/internal/wholefile"
	"github.com/sambatrain/sambatrain/recipes"
)

// Files of a comparison, besides its runs. The picture has two formats.
const (
	comparisonFile    = "compare.json"
	comparisonPicture = "compare"
)

func newCompare(a *app) *cobra.Command {
	var flags recipeFlags
	var lengths []int
	var output outputForm
	c := &cobra.Command{
		Use:   "compare RECIPE...",
		Short: "Train several recipes on the same tokens and compare them",
		Long: `Train several recipes on the same tokens, with the same seed, and produce one table
(parameters, tokens per second, perplexity at several row lengths) and one picture of
the validation loss. The runs are written to the folder of --out, each named after its
recipe, next to compare.json, compare.png and compare.svg.

It can be stopped at any time: the same command continues. Finished runs are not trained
again, so some recipes may be trained on another device beforehand.`,
		Example:           "  sambatrain compare ablation-samba ablation-mamba --out runs/ablation\n  sambatrain compare 'ablation-*' --steps 4000 --device cuda --output markdown",
		Args:              atLeastOneArg("recipe"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			out := "runs/compare"
			for _, set := range flags.assignments(c) {
				if dir, ok := strings.CutPrefix(set, "run.out="); ok {
					out = dir
				}
			}
			list, err := comparedRecipes(c, flags, lengths, out, args)
			if err != nil {
				return err
			}
			o, err := a.launchedOptions(c)
			if err != nil {
				return err
			}
			tidy, err := makeFolder(out)
			if err != nil {
				return err
			}
			defer tidy()
			ctx, stop := untilSignal(c.Context(), nil)
			defer stop()
			result, err := train.Compare(ctx, list, o)
			if err != nil {
				return err
			}
			if err := writeComparison(out, result); err != nil {
				return err
			}
			if err := printComparison(c, output, out, result); err != nil {
				return err
			}
			return failedRuns(result)
		},
	}
	flags.addRun(c)
	c.Flags().Lookup("out").Usage = "folder for the runs, the table and the picture (default runs/compare)"
	c.Flags().IntSliceVar(&lengths, "lengths", []int{1, 2, 4}, "row `lengths` of the validation, in multiples of data.seq_len (recipe key eval.lengths)")
	outputFlag(c, &output, outputMarkdown)
	return c
}

// comparedRecipes returns the recipes that args name, with run directories in out.
func comparedRecipes(c *cobra.Command, flags recipeFlags, lengths []int, out string, args []string) ([]*recipes.Recipe, error) {
	text, err := json.Marshal(lengths)
	if err != nil {
		return nil, err
	}
	flags.sets = append([]string{"eval.lengths=" + string(text)}, flags.sets...)
	var list []*recipes.Recipe
	for _, arg := range args {
		names, err := matchingRecipes(arg)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			r, err := flags.load(c, name)
			if err != nil {
				return nil, err
			}
			r.Run.Out = filepath.Join(out, r.Name)
			list = append(list, r)
		}
	}
	return list, nil
}

// matchingRecipes returns the built-in recipes that match a pattern such as ablation-*; a name
// without a * stands for itself.
func matchingRecipes(name string) ([]string, error) {
	if !strings.Contains(name, "*") {
		return []string{name}, nil
	}
	pattern := strings.TrimSuffix(strings.TrimPrefix(name, "recipes/"), ".yaml")
	var list []string
	for _, known := range recipes.Names() {
		if ok, err := filepath.Match(pattern, known); err == nil && ok {
			list = append(list, known)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("recipe %s: no built-in recipe has such a name; `sambatrain recipes ls` lists them", name)
	}
	return list, nil
}

// writeComparison writes the results and the picture. If no run is finished there is nothing to
// draw.
func writeComparison(dir string, result *train.Comparison) error {
	text, err := plainjson.Indented(result)
	if err != nil {
		return err
	}
	if err := wholefile.Write(filepath.Join(dir, comparisonFile), text); err != nil {
		return err
	}
	series, err := validationCurves(result)
	if err != nil || len(series) == 0 {
		return err
	}
	o := plot.Options{Title: "Validation loss", XLabel: "tokens", YLabel: "nats per token", CutTop: true}
	for _, ext := range plot.Extensions {
		if err := plot.Curves(filepath.Join(dir, comparisonPicture+ext), o, series); err != nil {
			return err
		}
	}
	return nil
}

// validationCurves returns the validation loss of each run over the tokens that it was trained on,
// the lowest final loss first.
func validationCurves(result *train.Comparison) ([]plot.Series, error) {
	var series []plot.Series
	perStep := float64(result.Tokens) / float64(result.Steps)
	for _, r := range result.Runs {
		if r.Error != "" {
			continue
		}
		records, _, err := runlog.Read(filepath.Join(r.Run, train.MetricsFile))
		if err != nil {
			return nil, err
		}
		s := plot.Series{Name: r.Name, Style: plot.Line}
		for _, rec := range records {
			if rec.Kind == runlog.KindVal {
				s.X, s.Y = append(s.X, perStep*float64(rec.Step)), append(s.Y, rec.Val.Loss)
			}
		}
		series = append(series, s)
	}
	slices.SortStableFunc(series, func(a, b plot.Series) int {
		if a.Y[len(a.Y)-1] < b.Y[len(b.Y)-1] {
			return -1
		}
		return 1
	})
	return series, nil
}

// failedRuns returns an error if some recipe has no results; the log has reported each.
func failedRuns(result *train.Comparison) error {
	var names []string
	for _, r := range result.Runs {
		if r.Error != "" {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d recipes have no results: %s; fix that and run the same command again", len(names), len(result.Runs), strings.Join(names, ", "))
}

func printComparison(c *cobra.Command, output outputForm, dir string, result *train.Comparison) error {
	if output == outputMarkdown {
		return comparisonMarkdown(c.OutOrStdout(), result)
	}
	return printResult(c, output, result, func(w io.Writer) error {
		fmt.Fprintf(w, "%s steps, %s tokens in rows of %d; perplexity on rows of as many tokens as its column says\n\n", thousands(result.Steps), thousands(result.Tokens), result.SeqLen)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, row := range comparisonTable(result) {
			fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\n%s  %s\n", filepath.Join(dir, comparisonFile), filepath.Join(dir, comparisonPicture+plot.Extensions[0]))
		return err
	})
}

func comparisonMarkdown(w io.Writer, result *train.Comparison) error {
	table := comparisonTable(result)
	rule := make([]string, len(table[0]))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	for _, row := range slices.Insert(table, 1, rule) {
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | ")); err != nil {
			return err
		}
	}
	return nil
}

// comparisonTable has a header and a row for each recipe. If they were computed on different
// devices, the speeds say on which.
func comparisonTable(result *train.Comparison) [][]string {
	var measured []train.Measured
	devices := map[string]bool{}
	for _, r := range result.Runs {
		if r.Error == "" {
			measured = r.Validation
			devices[r.Device] = true
		}
	}
	head := []string{"recipe", "parameters", "tokens/s"}
	for _, m := range measured {
		head = append(head, fmt.Sprintf("ppl %d", m.Length))
	}
	table := [][]string{head}
	for _, r := range result.Runs {
		row := []string{r.Name, thousands(r.Parameters)}
		if r.Error != "" {
			row = append(row, "failed")
		} else if len(devices) > 1 {
			row = append(row, fmt.Sprintf("%s on %s", runlog.Thousands(r.TokensPerSecond), r.Device))
		} else {
			row = append(row, runlog.Thousands(r.TokensPerSecond))
		}
		for i := range measured {
			if r.Error != "" {
				row = append(row, "")
			} else {
				row = append(row, fmt.Sprintf("%.4g", r.Validation[i].Perplexity))
			}
		}
		table = append(table, row)
	}
	return table
}
