package main

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// commandLine splits a line as shells do, up to the end of the command.
func commandLine(line string) []string {
	var words []string
	word, quote, open := "", rune(0), false
	end := func() {
		if open {
			words = append(words, word)
		}
		word, open = "", false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ':
			end()
		case strings.ContainsRune("|>;&", r) || r == '#' && !open:
			end()
			return words
		default:
			word, open = word+string(r), true
		}
	}
	end()
	return words
}

// checkCommand parses a command line without running it. Partial ones may lack arguments.
func checkCommand(args []string, whole bool) error {
	c, rest, err := newRoot().Find(args)
	if err != nil {
		return err
	}
	if c.HasSubCommands() && c.Name() != "bench" && (whole || len(rest) > 0) {
		return fmt.Errorf("no command %q", rest)
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if whole {
		return c.ValidateArgs(c.Flags().Args())
	}
	return nil
}

// documents returns the pages of the repository, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && slices.Contains([]string{".git", "runs", "node_modules", "dist"}, e.Name()) {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			pages[path] = string(read(t, path))
		}
		return nil
	})
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	return pages
}

// TestDocumentedCommands: this program accepts the command lines in the documentation.
func TestDocumentedCommands(t *testing.T) {
	lines := regexp.MustCompile(`(?m)^(?: {4}|\t|  )(?:.*[ /(])?sambatrain +(\S.*)$`)
	parts := regexp.MustCompile("`sambatrain ([^`]+)`")
	found := 0
	for path, text := range documents(t) {
		if filepath.Base(path) == "LOG.md" { // it describes the past
			continue
		}
		joined := strings.ReplaceAll(text, "\\\n", " ")
		for whole, list := range map[bool][][]string{true: lines.FindAllStringSubmatch(joined, -1), false: parts.FindAllStringSubmatch(joined, -1)} {
			for _, m := range list {
				found++
				if err := checkCommand(commandLine(strings.ReplaceAll(m[1], "\n", " ")), whole); err != nil {
					t.Errorf("%s: sambatrain %s: %v", path, m[1], err)
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("%d command lines were found, too few to show anything", found)
	}
}

// TestDocumentedFiles: the targets of links in the documentation exist.
func TestDocumentedFiles(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)\s#]+)[^)\s]*\)`)
	for path, text := range documents(t) {
		for _, m := range links.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

// TestReadmeModels: the sizes of models in the README are those that inspect counts.
func TestReadmeModels(t *testing.T) {
	text := read(t, filepath.Join("..", "..", "README.md"))
	rows := regexp.MustCompile("(?m)^\\| `([a-z0-9.-]+)` \\| ([0-9.]+)([MB]) \\| (\\d+) \\| (\\d+) \\| ([0-9.]+) GB \\|$").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 6 {
		t.Fatalf("%d models", len(rows))
	}
	near := func(text string, unit, want float64) bool { // to the precision that is written
		x, err := strconv.ParseFloat(text, 64)
		_, decimals, _ := strings.Cut(text, ".")
		return err == nil && math.Abs(x-want/unit) <= 0.5*math.Pow(10, -float64(len(decimals)))+1e-9
	}
	for _, row := range rows {
		r, err := recipes.Load(row[1])
		if err != nil {
			t.Fatal(err)
		}
		in, err := train.Inspect(r)
		if err != nil {
			t.Fatal(err)
		}
		unit := map[string]float64{"M": 1e6, "B": 1e9}[row[3]]
		if !near(row[2], unit, float64(in.Parameters.Total)) || row[4] != strconv.Itoa(r.Model.Layers.Repeat) || row[5] != strconv.Itoa(r.Data.SeqLen) || !near(row[6], 1e9, float64(in.Memory.Total)) {
			t.Errorf("%s: %d parameters, %d blocks, rows of %d, %d bytes", row[0], in.Parameters.Total, r.Model.Layers.Repeat, r.Data.SeqLen, in.Memory.Total)
		}
	}
}

// TestReadmeCommands: the README has every command.
func TestReadmeCommands(t *testing.T) {
	_, table, _ := strings.Cut(string(read(t, filepath.Join("..", "..", "README.md"))), "## Commands")
	table, _, _ = strings.Cut(table, "\n## ")
	var named []string // `eval ppl`, or `ppl` after one that began with its parent
	parent := ""
	for _, m := range regexp.MustCompile("`([a-z]+)( [a-z]+)?[^`]*`").FindAllStringSubmatch(table, -1) {
		if m[2] != "" {
			parent = m[1]
		}
		named = append(named, m[1]+m[2], parent+" "+m[1])
	}
	var check func(c *cobra.Command, path string)
	check = func(c *cobra.Command, path string) {
		if c.Runnable() && (!c.HasSubCommands() || path == "completion") && !slices.Contains(named, path) {
			t.Errorf("README.md has no command %s", path)
		}
		if path == "completion" { // a command for each shell
			return
		}
		for _, sub := range c.Commands() {
			check(sub, strings.TrimSpace(path+" "+sub.Name()))
		}
	}
	check(newRoot(), "")
}

// TestReadmeRecipe: the recipe in the README is the quickstart's, as it says.
func TestReadmeRecipe(t *testing.T) {
	text, _, err := recipes.Source("quickstart")
	if err != nil {
		t.Fatal(err)
	}
	if readme := read(t, filepath.Join("..", "..", "README.md")); !strings.Contains(string(readme), "```yaml\n"+string(text)+"```\n") {
		t.Error("README.md has another recipe than recipes/quickstart.yaml")
	}
}
