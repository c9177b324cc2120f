package recipes

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

//go:embed *.yaml
var embedded embed.FS

// Names are the recipes that the binary holds.
func Names() []string {
	files, err := fs.Glob(embedded, "*.yaml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".yaml")
	}
	return files
}

// Source is a recipe's text: the file at name, or else the embedded recipe that
// is called so, with or without a folder and .yaml.
func Source(name string) (text []byte, from string, err error) {
	text, err = os.ReadFile(name)
	if err == nil {
		return text, name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("recipe: %w", err)
	}
	base := strings.TrimSuffix(filepath.Base(name), ".yaml")
	if text, err := embedded.ReadFile(base + ".yaml"); err == nil {
		return text, "built-in " + path.Join("recipes", base+".yaml"), nil
	}
	return nil, "", fmt.Errorf("recipe %s: no such file, and no built-in recipe has that name; there are %s", name, strings.Join(Names(), ", "))
}

// Load reads a recipe by file or name, applies sets (each key.path=value) in
// order, and validates the whole.
func Load(name string, sets ...string) (*Recipe, error) {
	text, from, err := Source(name)
	if err != nil {
		return nil, err
	}
	return Parse(text, from, sets...)
}

// Parse is Load for a text that came from somewhere.
func Parse(text []byte, from string, sets ...string) (*Recipe, error) {
	r := Defaults()
	if err := decode(text, from, &r); err != nil {
		return nil, err
	}
	for _, s := range sets {
		if err := r.Set(s); err != nil {
			return nil, err
		}
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return &r, nil
}

// Set changes one key: `optim.lr=3e-4`. The value is YAML.
func (r *Recipe) Set(assignment string) error {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok || key == "" {
		return fmt.Errorf("--set %s: want key=value, as in --set optim.lr=3e-4", assignment)
	}
	parts := strings.Split(key, ".")
	var text strings.Builder
	for i, p := range parts {
		if p == "" || strings.ContainsAny(p, ": \n\t{}[]#&*!|>'\"%@`,") {
			return fmt.Errorf("--set %s: %q is not a key", assignment, key)
		}
		fmt.Fprintf(&text, "%s%s:", strings.Repeat("  ", i), p)
		if i < len(parts)-1 {
			text.WriteByte('\n')
		}
	}
	if strings.ContainsAny(value, "\n\r") {
		return fmt.Errorf("--set %s: the value must be on one line", key)
	}
	fmt.Fprintf(&text, " %s\n", value)
	return decode([]byte(text.String()), "--set "+key, r)
}

// decode puts a YAML document's keys into r and leaves the others as they are.
func decode(text []byte, from string, r *Recipe) (err error) {
	// The parser is a library that reads what users type.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: not readable as YAML (%v)", from, p)
		}
	}()
	if len(text) > maxRecipe {
		return fmt.Errorf("%s: %d bytes are too long for a recipe; at most %d", from, len(text), maxRecipe)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fmt.Errorf("%s:%s", from, oneLine(err))
	}
	docs := slices.DeleteFunc(slices.Clone(file.Docs), func(d *ast.DocumentNode) bool { return d.Body == nil })
	if len(docs) == 0 {
		return fmt.Errorf("%s: the recipe is empty", from)
	}
	if len(docs) > 1 {
		return fmt.Errorf("%s: a recipe is one YAML document, this file has %d", from, len(docs))
	}
	if err := checkKeys(from, docs[0].Body, r); err != nil {
		return err
	}
	if err := yaml.UnmarshalWithOptions(text, r, yaml.Strict()); err != nil {
		return fmt.Errorf("%s:%s", from, oneLine(err))
	}
	return nil
}

// maxRecipe bounds what is parsed; the longest recipe here has 3 KB.
const maxRecipe = 1 << 20

// oneLine turns `[3:5] message\n...` into `3: message`.
func oneLine(err error) string {
	line := strings.SplitN(err.Error(), "\n", 2)[0]
	if at, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "] "); ok && strings.HasPrefix(line, "[") {
		row, _, _ := strings.Cut(at, ":")
		return row + ": " + rest
	}
	return " " + line
}
