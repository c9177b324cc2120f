package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commandLine splits a line as shells do, up to what ends a command there.
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

// checkCommand parses a command line without running it. Parts of one may lack arguments.
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

// TestDocumentedCommands: the command lines in the documentation and in the help are ones
// that this program takes.
func TestDocumentedCommands(t *testing.T) {
	root := filepath.Join("..", "..")
	lines := regexp.MustCompile(`(?m)^(?: {4}|\t|  )(?:.*[ /(])?sambatrain +(\S.*)$`)
	parts := regexp.MustCompile("`sambatrain ([^`]+)`")
	found := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && slices.Contains([]string{".git", "runs", "node_modules", "dist"}, e.Name()) {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" || e.Name() == "LOG.md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		joined := strings.ReplaceAll(string(text), "\\\n", " ")
		for whole, list := range map[bool][][]string{true: lines.FindAllStringSubmatch(joined, -1), false: parts.FindAllStringSubmatch(joined, -1)} {
			for _, m := range list {
				found++
				if err := checkCommand(commandLine(strings.ReplaceAll(m[1], "\n", " ")), whole); err != nil {
					t.Errorf("%s: sambatrain %s: %v", path, m[1], err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 50 {
		t.Errorf("%d command lines were found, too few to show anything", found)
	}
}
