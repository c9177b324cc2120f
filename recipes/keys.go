package recipes

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
)

// checkKeys compares a document with the struct that it will be decoded into. The decoder's own
// check knows neither the full path of a key nor the most similar one, and it converts values to
// the type it wants: 3.5 to 3, 010 to 8, 5 to "5". checkKeys returns the keys in the document, by
// path, with their positions.
func checkKeys(from string, body ast.Node) (map[string]string, error) {
	t := reflect.TypeFor[Recipe]()
	c := keyChecker{from: from, given: map[string]string{}}
	return c.given, c.section("", body, t, append(keysOf("", t), extends))
}

type keyChecker struct {
	from  string
	given map[string]string
}

func (c keyChecker) errorf(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("%s: %s", position(c.from, n), fmt.Sprintf(format, args...))
}

// position returns file:line, or the flag that a value came from.
func position(from string, n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil && !strings.HasPrefix(from, setFlag) {
		return fmt.Sprintf("%s:%d", from, t.Position.Line)
	}
	return from
}

var unmarshaler = reflect.TypeFor[yaml.BytesUnmarshaler]()

// readsItself reports whether a type has its own UnmarshalYAML.
func readsItself(t reflect.Type) bool { return reflect.PointerTo(t).Implements(unmarshaler) }

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !readsItself(t) }

func keyOf(f reflect.StructField) (string, bool) {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name, f.IsExported() && name != "" && name != "-"
}

// fieldsOf returns a section's fields by key.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for i := range t.NumField() {
		if name, ok := keyOf(t.Field(i)); ok {
			fields[name] = t.Field(i)
		}
	}
	return fields
}

// keysOf returns a section's keys and those of its subsections, each with its path.
func keysOf(prefix string, t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, ok := keyOf(f)
		if !ok {
			continue
		}
		keys = append(keys, prefix+name)
		if isSection(f.Type) {
			keys = append(keys, keysOf(prefix+name+".", f.Type)...)
		}
	}
	return keys
}

// Keys returns the keys of a recipe that have values, each with its path.
func Keys() []string {
	all := keysOf("", reflect.TypeFor[Recipe]())
	return slices.DeleteFunc(all, func(key string) bool {
		return slices.ContainsFunc(all, func(other string) bool { return strings.HasPrefix(other, key+".") })
	})
}

// Nearest returns the known key, or other name, with the smallest edit distance, or "" if more than
// half of the letters would change. The last part of a key's path has more weight than the section,
// which people also get wrong.
func Nearest(key string, known []string) string {
	best, distance := "", math.MaxInt
	key = strings.ToLower(key) // all keys are in lower case
	last := key[strings.LastIndex(key, ".")+1:]
	for _, k := range known {
		own := levenshtein.ComputeDistance(last, k[strings.LastIndex(k, ".")+1:])
		d := levenshtein.ComputeDistance(key, k) + 2*own
		if d < distance && 2*own <= len(last) {
			best, distance = k, d
		}
	}
	return best
}

// unknown returns the message for a key that the section t doesn't have.
func unknown(section, key string, t reflect.Type, known []string) string {
	if near := Nearest(key, known); near != "" {
		return fmt.Sprintf("unknown key %s; did you mean %s?", oneLine(key), near)
	}
	var names []string
	for i := range t.NumField() {
		if name, ok := keyOf(t.Field(i)); ok {
			names = append(names, name)
		}
	}
	return fmt.Sprintf("unknown key %s; %s has %s", oneLine(key), section, strings.Join(names, ", "))
}

// entries returns a mapping's keys and values.
func entries(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func keyText(n ast.MapKeyNode) string {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value
	}
	return n.String()
}

// section checks a mapping against the struct t. known are the keys to suggest.
func (c keyChecker) section(prefix string, n ast.Node, t reflect.Type, known []string) error {
	name := strings.TrimSuffix(prefix, ".")
	if name == "" {
		name = "a recipe"
	}
	if err := c.plain(name, n); err != nil {
		return err
	}
	list, ok := entries(n)
	if !ok {
		return c.errorf(n, "%s must be a section of `key: value` lines", name)
	}
	fields, lines := fieldsOf(t), map[string]int{}
	for _, v := range list {
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			return c.errorf(v.Key, "%s: anchors and aliases are not used in recipes; write the keys", name)
		}
		key := keyText(v.Key)
		f, ok := fields[key]
		if !ok {
			return c.errorf(v.Key, "%s", unknown(name, prefix+key, t, known))
		}
		if first, ok := lines[key]; ok {
			return c.errorf(v.Key, "%s is given twice, first in line %d", prefix+key, first)
		}
		lines[key] = v.Key.GetToken().Position.Line
		if isSection(f.Type) {
			if err := c.section(prefix+key+".", v.Value, f.Type, known); err != nil {
				return err
			}
			continue
		}
		if err := c.value(prefix+key, v.Value, f.Type); err != nil {
			return err
		}
		c.given[prefix+key] = position(c.from, v.Key)
	}
	return nil
}

// plain rejects YAML features that recipes don't use.
func (c keyChecker) plain(path string, n ast.Node) error {
	switch n := n.(type) {
	case *ast.NullNode:
		return c.errorf(n, "%s has no value", path)
	case *ast.AnchorNode, *ast.AliasNode:
		return c.errorf(n, "%s: anchors and aliases are not used in recipes; write the value", path)
	case *ast.TagNode:
		return c.errorf(n, "%s: tags such as %s are not used in recipes; write the value alone", path, n.Start.Value)
	}
	return nil
}

// value checks any value that is not a section.
func (c keyChecker) value(path string, n ast.Node, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if err := c.plain(path, n); err != nil {
		return err
	}
	if t == reflect.TypeFor[layers.Place]() {
		return c.place(path, n)
	}
	if readsItself(t) {
		if err := yaml.NodeToValue(n, reflect.New(t).Interface()); err != nil {
			return c.errorf(n, "%s %s", path, oneLine(err.Error()))
		}
		return nil
	}
	if t.Kind() == reflect.Slice {
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			return c.errorf(n, "%s must be a list such as [a, b], is %s", path, shown(n))
		}
		for i, v := range list.Values {
			at, err := fmt.Sprintf("%s[%d]", path, i), error(nil)
			if isSection(t.Elem()) && t.Elem() != reflect.TypeFor[layers.Place]() {
				err = c.section(at+".", v, t.Elem(), keysOf(at+".", t.Elem()))
			} else {
				err = c.value(at, v, t.Elem())
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := scalar(n, t.Kind()); err != nil {
		return c.errorf(n, "%s %v", path, err)
	}
	return nil
}

// place checks an entry of model.layers.pattern, including the settings of its mixer.
func (c keyChecker) place(path string, n ast.Node) error {
	list, isMap := entries(n)
	name, isName := n.(*ast.StringNode)
	var mixer string
	switch {
	case isName:
		mixer = name.Value
	case isMap && len(list) == 1:
		mixer = keyText(list[0].Key)
	default:
		return c.errorf(n, "%s must be a mixer's name or {name: {key: value}}, is %s", path, shown(n))
	}
	settings, err := layers.Settings(mixer)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", position(c.from, n), path, err)
	}
	if isName {
		return nil
	}
	t, prefix := reflect.TypeOf(settings), path+"."+mixer+"."
	return c.section(prefix, list[0].Value, t, keysOf(prefix, t))
}

// shown returns a value as an error shows it, on one line and not too long.
func shown(n ast.Node) string {
	text := oneLine(n.String())
	if s, ok := n.(*ast.StringNode); ok {
		text = strconv.Quote(s.Value)
	}
	if len(text) > 60 {
		return strings.ToValidUTF8(text[:60], "") + "..."
	}
	return text
}

// oneLine joins several lines into one, without control characters.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }), " ")
}

// takeBack clears an earlier setting of the other one of two keys that mean the same thing, or of a
// key that the new schedule doesn't use: --set train.steps=10 takes effect although the recipe sets
// train.tokens.
func (r *Recipe) takeBack(given map[string]string) {
	only := func(key, other string) bool { return given[key] != "" && given[other] == "" }
	if only("train.steps", "train.tokens") && r.Train.Steps != 0 {
		r.Train.Tokens = 0
	}
	if only("train.tokens", "train.steps") && r.Train.Tokens != 0 {
		r.Train.Steps = 0
	}
	if only("optim.warmup_steps", "optim.warmup_fraction") {
		r.Optim.WarmupFraction = nil
	}
	if only("optim.warmup_fraction", "optim.warmup_steps") {
		r.Optim.WarmupSteps = nil
	}
	if only("optim.schedule", "optim.decay_fraction") && r.Optim.Schedule != optim.WSD {
		r.Optim.DecayFraction = nil
	}
	if only("optim.schedule", "optim.min_lr") && r.Optim.Schedule == optim.Constant {
		r.Optim.MinLR = nil
	}
	r.takeBackData(given)
}

// takeBackData is takeBack for the keys that say where rows come from.
func (r *Recipe) takeBackData(given map[string]string) {
	some := func(section string) bool {
		for key := range given {
			if key == section || strings.HasPrefix(key, section+".") {
				return true
			}
		}
		return false
	}
	task, mixture, shards, text := r.Data.Generate.Task != "" && some("data.generate.task"), some("data.mixture"), some("data.shards"), some("data.text")
	if (task || mixture) && !shards {
		r.Data.Shards = ""
	}
	if (task || mixture) && !shards && !text {
		r.Data.Text = data.DefaultConfig().Text
	}
	if (task || shards) && !mixture {
		r.Data.Mixture = nil
	}
	if (mixture || shards) && !task {
		r.Data.Generate.Task = ""
	}
}

// field returns the struct field at a key's path, and whether it exists.
func (r *Recipe) field(path string) (reflect.Value, bool) {
	v := reflect.ValueOf(r).Elem()
	for _, key := range strings.Split(path, ".") {
		if !isSection(v.Type()) {
			return reflect.Value{}, false
		}
		f, ok := fieldsOf(v.Type())[key]
		if !ok {
			return reflect.Value{}, false
		}
		v = v.FieldByIndex(f.Index)
	}
	return v, true
}

// badText reports why s is not text, and in which line: bytes that are not UTF-8, or control
// characters. It returns "" for text.
func badText(s string) (problem string, line int) {
	line = 1
	for i, r := range s {
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			return "holds bytes that are not UTF-8", line
		case r != '\t' && r != '\r' && unicode.IsControl(r):
			return fmt.Sprintf("holds the control character %U", r), line
		}
	}
	return "", line
}
