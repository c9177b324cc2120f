package recipes

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

//go:embed *.yaml
var embedded embed.FS

// Names returns the names of the built-in recipes.
func Names() []string {
	files, err := fs.Glob(embedded, "*.yaml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".yaml")
	}
	slices.Sort(files) // a-b.yaml sorts before a.yaml, but a before a-b
	return files
}

// suggestion returns the hint for a name that no built-in recipe has.
func suggestion(name string) string {
	name = strings.TrimSuffix(path.Base(filepath.ToSlash(name)), ".yaml")
	if near := NearestName(name, Names()); near != "" {
		return fmt.Sprintf("did you mean %s? `sambatrain recipes ls` lists them", near)
	}
	return "`sambatrain recipes ls` lists them"
}

// NearestName returns the known name with the smallest edit distance, or "" if more than a third of
// the letters would change.
func NearestName(name string, known []string) string {
	near := Nearest(name, known)
	if near == "" || levenshtein.ComputeDistance(name, near) > 1+len(name)/3 {
		return ""
	}
	return near
}

// source is a recipe's text and its origin.
type source struct {
	text []byte
	from string // for people
	// dir is the folder that `extends` is relative to; empty for a built-in recipe.
	dir string
}

// Source returns a recipe's text: the file at name, or else the built-in recipe of that name, given
// as quickstart, quickstart.yaml or recipes/quickstart.yaml.
func Source(name string) (text []byte, from string, err error) {
	s, err := open(name)
	return s.text, s.from, err
}

func open(name string) (source, error) {
	text, err := readFile(name)
	if err == nil {
		return source{text: text, from: name, dir: filepath.Dir(name)}, nil
	}
	if s, ok := builtin(filepath.ToSlash(name)); ok {
		return s, nil
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return source{}, fmt.Errorf("recipe %s: is a folder; name a YAML file in it", name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return source{}, fmt.Errorf("recipe %s: no such file, and no built-in recipe has that name; %s", name, suggestion(name))
	}
	return source{}, fmt.Errorf("recipe: %w", err)
}

// maxRecipe limits the size of a recipe, in bytes; the longest one here has 3 KB.
const maxRecipe = 1 << 16

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecipe+1))
}

func builtin(name string) (source, bool) {
	file := strings.TrimSuffix(strings.TrimPrefix(name, "recipes/"), ".yaml") + ".yaml"
	if strings.Contains(file, "/") {
		return source{}, false
	}
	text, err := embedded.ReadFile(file)
	return source{text: text, from: "built-in " + path.Join("recipes", file)}, err == nil
}

// Load reads a recipe by file or name, applies sets (each key.path=value) in order, and validates
// the result.
func Load(name string, sets ...string) (*Recipe, error) {
	s, err := open(name)
	if err != nil {
		return nil, err
	}
	return build(s, sets)
}

// Parse is Load for the text of a file.
func Parse(text []byte, file string, sets ...string) (*Recipe, error) {
	return build(source{text: text, from: file, dir: filepath.Dir(file)}, sets)
}

func build(s source, sets []string) (*Recipe, error) {
	r := Defaults()
	p := positions{}
	if err := r.read(s, p, nil); err != nil {
		return nil, err
	}
	return r.finish(s, p, sets)
}

// finish applies sets to what was read from s, and validates the result.
func (r *Recipe) finish(s source, p positions, sets []string) (*Recipe, error) {
	for _, set := range sets {
		if err := r.set(set, p); err != nil {
			return nil, err
		}
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.of(err, s.from), err)
	}
	return r, nil
}

// positions are the places where keys were last set: file:line, or a flag.
type positions map[string]string

// of returns the position of the key that an error starts with, or else file.
func (p positions) of(err error, file string) string {
	key, _, _ := strings.Cut(err.Error(), ": ")
	list, _, _ := strings.Cut(key, "[")
	for _, key := range []string{key, list} {
		if at, ok := p[key]; ok {
			return at
		}
	}
	return file
}

// extends is the key that names the recipe that a file builds on.
const extends = "extends"

// maxChain limits how many recipes may extend one another.
const maxChain = 8

// read applies a file's keys to r, after those of the recipe that it extends, and stores their
// positions in p. chain lists the files that led here.
func (r *Recipe) read(s source, p positions, chain []string) error {
	body, err := parse(s.text, s.from)
	if err != nil {
		return err
	}
	base, err := takeExtends(s.from, body)
	if err != nil {
		return err
	}
	if base != nil {
		b, err := s.base(base.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", position(s.from, base), err)
		}
		chain = append(chain, s.from)
		if slices.Contains(chain, b.from) {
			return fmt.Errorf("%s: %s: is circular: %s", position(s.from, base), extends, strings.Join(append(chain, b.from), ", "))
		}
		if len(chain) >= maxChain {
			return fmt.Errorf("%s: %s: more than %d recipes extend each other: %s", position(s.from, base), extends, maxChain, strings.Join(chain, ", "))
		}
		if err := r.read(b, p, chain); err != nil {
			return err
		}
	}
	return r.decode(body, s.from, p)
}

// takeExtends removes the extends key from a document and returns its value, or nil if there is
// none.
func takeExtends(from string, body *ast.MappingNode) (*ast.StringNode, error) {
	var base *ast.StringNode
	for _, v := range body.Values {
		if keyText(v.Key) != extends {
			continue
		}
		if base != nil {
			return nil, fmt.Errorf("%s: %s is given twice, first in line %d", position(from, v.Key), extends, base.GetToken().Position.Line)
		}
		var ok bool
		if base, ok = v.Value.(*ast.StringNode); !ok || base.Value == "" {
			return nil, fmt.Errorf("%s: %s must name a recipe: a file, or a built-in one", position(from, v.Key), extends)
		}
	}
	body.Values = slices.DeleteFunc(body.Values, func(v *ast.MappingValueNode) bool { return keyText(v.Key) == extends })
	return base, nil
}

// base returns the recipe that s extends: a file, relative to the one that s is in, or a built-in
// recipe.
func (s source) base(name string) (source, error) {
	if s.dir != "" {
		file := filepath.FromSlash(name)
		if !filepath.IsAbs(file) {
			file = filepath.Join(s.dir, file)
		}
		// A pipe or a device may never end.
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return open(file)
		}
	}
	if b, ok := builtin(name); ok {
		return b, nil
	}
	if s.dir == "" {
		return source{}, fmt.Errorf("%s: no built-in recipe is called %s; %s", extends, oneLine(name), suggestion(name))
	}
	return source{}, fmt.Errorf("%s: no file %s beside this one, and no built-in recipe has that name; %s", extends, oneLine(name), suggestion(name))
}

// setFlag is the command-line flag that changes one key.
const setFlag = "--set"

// Set changes one key: `optim.lr=3e-4`. The value is YAML; if the key expects text, any text may be
// given without quotes.
func (r *Recipe) Set(assignment string) error { return r.set(assignment, positions{}) }

func (r *Recipe) set(assignment string, p positions) error {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok || key == "" {
		return fmt.Errorf("%s %s: want key=value, as in --set optim.lr=3e-4", setFlag, oneLine(assignment))
	}
	from := setFlag + " " + oneLine(key)
	if key == extends {
		return fmt.Errorf("%s: only a recipe's file can extend another", from)
	}
	if f, ok := r.field(key); ok && f.Kind() == reflect.String && !strings.HasPrefix(value, `"`) && !strings.HasPrefix(value, `'`) {
		if problem, _ := badText(value); problem != "" {
			return fmt.Errorf("%s: %s", from, problem)
		}
		f.SetString(value)
		p[key] = from
		r.takeBack(map[string]string{key: from})
		return nil
	}
	parts := strings.Split(key, ".")
	var text strings.Builder
	for i, part := range parts {
		if part == "" || strings.ContainsFunc(part, notOfKeys) {
			return fmt.Errorf("%s: %q is not a key", from, key)
		}
		fmt.Fprintf(&text, "%s%s:", strings.Repeat("  ", i), part)
		if i < len(parts)-1 {
			text.WriteByte('\n')
		}
	}
	if strings.ContainsAny(value, "\n\r") {
		return fmt.Errorf("%s: the value must be on one line", from)
	}
	if problem, _ := badText(value); problem != "" {
		return fmt.Errorf("%s: %s", from, problem)
	}
	fmt.Fprintf(&text, " %s\n", value)
	body, err := parse([]byte(text.String()), from)
	if err != nil {
		return err
	}
	return r.decode(body, from, p)
}

func notOfKeys(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// parse reads a text that must be one YAML mapping.
func parse(text []byte, from string) (body *ast.MappingNode, err error) {
	// The parser is a library that reads what users type, so it may panic.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: not readable as YAML (%s)", from, oneLine(fmt.Sprint(p)))
		}
	}()
	if len(text) > maxRecipe {
		return nil, fmt.Errorf("%s: more than %d bytes are too long for a recipe", from, maxRecipe)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors on Windows add it
	if problem, line := badText(string(text)); problem != "" {
		return nil, fmt.Errorf("%s:%d: %s", from, line, problem)
	}
	if depth(text) > maxDepth {
		return nil, fmt.Errorf("%s: brackets are nested more than %d deep", from, maxDepth)
	}
	// Duplicate keys are reported later, with their paths.
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, yamlError(from, err)
	}
	docs := slices.DeleteFunc(slices.Clone(file.Docs), func(d *ast.DocumentNode) bool {
		_, comment := d.Body.(*ast.CommentGroupNode)
		return comment
	})
	if len(docs) > 1 {
		return nil, fmt.Errorf("%s: a recipe is one YAML document, this file has %d", from, len(docs))
	}
	if len(docs) == 0 || docs[0].Body == nil {
		return nil, fmt.Errorf("%s: the recipe is empty, or its keys are after a second ---", from)
	}
	values, ok := entries(docs[0].Body)
	if !ok {
		return nil, fmt.Errorf("%s: a recipe must be `key: value` lines, is %s", position(from, docs[0].Body), shown(docs[0].Body))
	}
	if body, ok = docs[0].Body.(*ast.MappingNode); !ok {
		body = ast.Mapping(docs[0].Body.GetToken(), false, values...)
	}
	return body, nil
}

// decode applies a document's keys to r and leaves the others unchanged.
func (r *Recipe) decode(body *ast.MappingNode, from string, p positions) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: not readable as YAML (%s)", from, oneLine(fmt.Sprint(p)))
		}
	}()
	given, err := checkKeys(from, body)
	if err != nil {
		return err
	}
	if len(body.Values) == 0 {
		return nil
	}
	if err := yaml.NodeToValue(body, r, yaml.Strict()); err != nil {
		return yamlError(from, err)
	}
	r.takeBack(given)
	maps.Copy(p, given)
	return nil
}

// maxDepth limits nested brackets, because the parser's time grows with a power of the depth.
const maxDepth = 32

// depth returns the maximum nesting depth of brackets, wherever they are.
func depth(text []byte) int {
	open, most := 0, 0
	for _, c := range text {
		switch c {
		case '[', '{':
			open++
			most = max(most, open)
		case ']', '}':
			open = max(open-1, 0)
		}
	}
	return most
}

// yamlError turns the YAML library's `[3:5] message`, followed by an excerpt, into `file:3:
// message`.
func yamlError(from string, err error) error {
	message, _, _ := strings.Cut(err.Error(), "\n")
	if m := yamlPosition.FindStringSubmatch(message); m != nil {
		message = m[2]
		if !strings.HasPrefix(from, setFlag) {
			from += ":" + m[1]
		}
	}
	return fmt.Errorf("%s: %s", from, oneLine(strings.ReplaceAll(message, "\t", `\t`)))
}

var yamlPosition = regexp.MustCompile(`^\[([0-9]+):[0-9]+\] (.*)$`)
