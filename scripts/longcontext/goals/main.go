// Command goals compares results of `sambatrain bench generate --output json` for Samba 1.7B and
// Llama-3 1.6B with the goals of docs/long-context.md, and prints markdown: the device, which must
// be the same for all, and a table.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sambatrain/sambatrain/internal/bench"
)

const (
	samba = "samba-1.7b"
	llama = "llama3-1.6b"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(files []string, out io.Writer) error {
	var all measured
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var g bench.Generation
		if err := json.Unmarshal(text, &g); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(all) > 0 && g.Device != all[0].Device {
			return fmt.Errorf("%s was measured on %s, %s on %s: measure all on one", path, g.Device, files[0], all[0].Device)
		}
		all = append(all, g)
	}
	lines, err := all.goals()
	if err != nil {
		return err
	}
	of := all[0] // goals has failed if there is none
	_, err = fmt.Fprintf(out, "Device: %s; limits (%s): %g TFLOP/s and %g GB/s.\n\n| goal | wanted | measured | |\n|---|---|---|---|\n%s\n",
		of.Device, of.Limits, of.TFLOPs, of.GBs, strings.Join(lines, "\n"))
	return err
}

// measured is the measurements; those of one model may come from several files.
type measured []bench.Generation

// goals returns the table's rows.
func (m measured) goals() ([]string, error) {
	const long, far, batch, k = 128 << 10, 64 << 10, 16, 1 << 10
	var rates [2]bench.PromptSpeed
	var steps [2]bench.DecodeSpeed
	var err error
	for i, name := range []string{samba, llama} {
		if rates[i], err = m.prompt(name, long); err != nil {
			return nil, err
		}
		if steps[i], err = m.decode(name, batch, far); err != nil {
			return nil, err
		}
	}
	one := make([]bench.DecodeSpeed, 2)
	for i, position := range []int{k, far} {
		if one[i], err = m.decode(samba, 1, position); err != nil {
			return nil, err
		}
	}
	slowest := m.slowestPrompt(samba)
	row := func(what, wanted, got, verdict string) string {
		return fmt.Sprintf("| %s | %s | %s | %s |", what, wanted, got, verdict)
	}
	times := func(what string, wanted, got float64) string {
		return row(what, fmt.Sprintf("%.2f times", wanted), fmt.Sprintf("%.2f times", got), verdict(got >= wanted, fmt.Sprintf("%.0f%%", 100*(1-got/wanted))))
	}
	share := func(what string, wanted, least float64, got string) string {
		return row(what, fmt.Sprintf("%.0f%%", wanted), got, verdict(least >= wanted, fmt.Sprintf("%.1f points", wanted-least)))
	}
	return []string{
		times("a prompt of 128k, Samba's speed over Llama's", 3.73, rates[0].TokensPerSecond/rates[1].TokensPerSecond),
		times("64k tokens generated with 16 rows, Samba's speed over Llama's", 3.64, steps[0].Until/steps[1].Until),
		share("Samba's prompts at every length, of the compute limit", 55, 100*slowest.Share,
			fmt.Sprintf("at least %.1f%%, at %dk", 100*slowest.Share, slowest.Length/k)),
		share("Samba's decoding with one row, of the memory bandwidth limit", 70, 100*min(one[0].Share, one[1].Share),
			fmt.Sprintf("%.1f%% at 1k, %.1f%% at 64k", 100*one[0].Share, 100*one[1].Share)),
	}, nil
}

func verdict(met bool, by string) string {
	if met {
		return "met"
	}
	return "missed by " + by
}

func (m measured) prompt(name string, length int) (bench.PromptSpeed, error) {
	for _, g := range m {
		for _, p := range g.Prompts {
			if g.Name == name && p.Length == length {
				return p, nil
			}
		}
	}
	return bench.PromptSpeed{}, fmt.Errorf("no file has prompts of %d tokens of %s", length, name)
}

func (m measured) decode(name string, rows, position int) (bench.DecodeSpeed, error) {
	for _, g := range m {
		for _, d := range g.Decode {
			if g.Name == name && d.Rows == rows && d.Position == position {
				return d, nil
			}
		}
	}
	return bench.DecodeSpeed{}, fmt.Errorf("no file has %s decoding %d rows at position %d", name, rows, position)
}

// slowestPrompt returns the prompt with the smallest share of the limit.
func (m measured) slowestPrompt(name string) (slowest bench.PromptSpeed) {
	for _, g := range m {
		for _, p := range g.Prompts {
			if g.Name == name && (slowest.Length == 0 || p.Share < slowest.Share) {
				slowest = p
			}
		}
	}
	return slowest
}
