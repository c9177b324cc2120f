package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/bench"
	"github.com/sambatrain/sambatrain/internal/plot"
)

func newBenchCurves() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "curves FILE...",
		Short: "Compare the `bench generate` results of several models",
		Long: `Draw the speeds that ` + "`bench generate --output json`" + ` measured for several models:
of prompts by length in OUT/prompts.png, and of decoding by the number of tokens generated
from an empty context in OUT/decode-ROWS.png. Also print them as markdown tables. Models
with the same name are labeled with their file names.`,
		Example: "  sambatrain bench generate samba-1.7b --output json > samba.json\n  sambatrain bench curves samba.json llama.json --out pictures",
		Args:    atLeastOneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			var list []bench.Generation
			for _, path := range args {
				g, err := readGeneration(path)
				if err != nil {
					return err
				}
				list = append(list, g)
			}
			tidy, err := makeFolder(out)
			if err != nil {
				return err
			}
			defer tidy()
			for _, t := range speedTables(list, args) {
				picture, err := t.draw(out)
				if err != nil {
					return err
				}
				slog.Info("drawn", "picture", picture)
				if err := t.print(c.OutOrStdout()); err != nil {
					return err
				}
			}
			for i, g := range list {
				for _, note := range g.Above() {
					fmt.Fprintf(c.OutOrStdout(), "\n%s: %s\n", args[i], note)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", ".", "folder to write the pictures to")
	return c
}

func readGeneration(path string) (g bench.Generation, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(text, &g); err != nil || g.Name == "" || len(g.Prompts)+len(g.Decode) == 0 {
		return g, fmt.Errorf("%s: not what `bench generate --output json` prints", path)
	}
	return g, nil
}

// speedTable holds the speeds of some models, for one picture and one table.
type speedTable struct {
	file, x string   // the picture's name, and the label of its x axis
	of      []string // the columns of each model
	models  []modelSpeeds
}

// modelSpeeds are the speeds of a model, by length.
type modelSpeeds struct {
	name    string
	from    string // the file
	lengths []int
	perS    []float64  // tokens per second, as drawn
	cells   [][]string // for each length, by column
}

// speedTables returns a table for prompts, and one for decoding with each number of rows. files are
// the files of the list.
func speedTables(list []bench.Generation, files []string) []speedTable {
	prompts := speedTable{file: "prompts", x: "prompt, tokens", of: []string{"tokens/s", "of compute limit"}}
	var decodes []speedTable
	for i, g := range list {
		m := modelSpeeds{name: g.Name, from: files[i]}
		for _, p := range g.Prompts {
			m.lengths, m.perS = append(m.lengths, p.Length), append(m.perS, p.TokensPerSecond)
			m.cells = append(m.cells, []string{fmt.Sprintf("%.0f", p.TokensPerSecond), percentOf(p.Share)})
		}
		if len(m.lengths) > 0 {
			prompts.models = append(prompts.models, m)
		}
		m = modelSpeeds{name: g.Name, from: files[i]}
		rows := 0
		for _, d := range g.Decode {
			if rows = d.Rows; d.Position == 0 {
				continue // nothing has been generated yet
			}
			m.lengths, m.perS = append(m.lengths, d.Position), append(m.perS, d.Until)
			m.cells = append(m.cells, []string{fmt.Sprintf("%.0f", d.Until), fmt.Sprintf("%.3f", d.StepMS), percentOf(d.Share)})
		}
		if len(m.lengths) == 0 {
			continue
		}
		file := fmt.Sprintf("decode-%d", rows)
		at := slices.IndexFunc(decodes, func(t speedTable) bool { return t.file == file })
		if at < 0 {
			at = len(decodes)
			decodes = append(decodes, speedTable{file: file, x: fmt.Sprintf("tokens generated, %d at once", rows),
				of: []string{"tokens/s up to here", "ms per step here", "of memory limit"}})
		}
		decodes[at].models = append(decodes[at].models, m)
	}
	all := decodes
	if len(prompts.models) > 0 {
		all = append([]speedTable{prompts}, decodes...)
	}
	for _, t := range all {
		t.distinguish()
	}
	return all
}

// distinguish names models of the same name after their files.
func (t speedTable) distinguish() {
	var names, files []string
	for _, m := range t.models {
		names, files = append(names, m.name), append(files, m.from)
	}
	for i, name := range distinct(names, files) {
		t.models[i].name = name
	}
}

// lengths returns the lengths of all models.
func (t speedTable) lengths() []int {
	var all []int
	for _, m := range t.models {
		all = append(all, m.lengths...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// draw writes the picture.
func (t speedTable) draw(folder string) (string, error) {
	o := plot.Options{XLabel: t.x, YLabel: "tokens per second", FromZero: true}
	_, o.XMarks = logLengths(t.lengths())
	var series []plot.Series
	for _, m := range t.models {
		s := plot.Series{Name: m.name, Style: plot.Points, Y: m.perS}
		s.X, _ = logLengths(m.lengths)
		series = append(series, s)
	}
	picture := filepath.Join(folder, t.file+".png")
	return picture, plot.Curves(picture, o, series)
}

func (t speedTable) print(w io.Writer) error {
	text := "\n| " + t.x + " |"
	for _, m := range t.models {
		text += " " + m.name + ", " + strings.Join(t.of, " | ") + " |"
	}
	text += "\n|" + strings.Repeat("---|", 1+len(t.models)*len(t.of)) + "\n"
	for _, n := range t.lengths() {
		text += "| " + lengthName(n) + " |"
		for _, m := range t.models {
			cells := make([]string, len(t.of))
			if i := slices.Index(m.lengths, n); i >= 0 {
				cells = m.cells[i]
			}
			text += " " + strings.Join(cells, " | ") + " |"
		}
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
