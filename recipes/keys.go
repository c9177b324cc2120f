package recipes

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// checkKeys compares a document with the struct that it will be decoded into. The
// decoder's own check knows neither the whole path of a key nor the nearest one,
// and it cuts a fraction off where a whole number is wanted.
func checkKeys(from string, body ast.Node, r *Recipe) error {
	c := keyChecker{from: from, all: keysOf("", reflect.TypeOf(*r))}
	return c.check("", body, reflect.TypeOf(*r))
}

type keyChecker struct {
	from string
	all  []string // every key of a recipe, with its path
}

var unmarshaler = reflect.TypeFor[yaml.BytesUnmarshaler]()

// leaf reports whether a type reads its own YAML, or holds no keys.
func leaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(unmarshaler)
}

func keyOf(f reflect.StructField) (string, bool) {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name, f.IsExported() && name != "" && name != "-"
}

func keysOf(prefix string, t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, ok := keyOf(f)
		if !ok {
			continue
		}
		keys = append(keys, prefix+name)
		if !leaf(f.Type) {
			keys = append(keys, keysOf(prefix+name+".", f.Type)...)
		}
	}
	return keys
}

func (c keyChecker) errorf(n ast.Node, format string, args ...any) error {
	at := c.from
	if t := n.GetToken(); t != nil && t.Position != nil && !strings.HasPrefix(c.from, "--set") {
		at = fmt.Sprintf("%s:%d", c.from, t.Position.Line)
	}
	return fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...))
}

func (c keyChecker) check(path string, n ast.Node, t reflect.Type) error {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case *ast.NullNode:
		return c.errorf(n, "%s has no value", strings.TrimSuffix(path, "."))
	default:
		what := strings.TrimSuffix(path, ".")
		if what == "" {
			what = "a recipe"
		}
		return c.errorf(n, "%s must be a section of `key: value` lines", what)
	}
	fields := map[string]reflect.StructField{}
	for i := range t.NumField() {
		if name, ok := keyOf(t.Field(i)); ok {
			fields[name] = t.Field(i)
		}
	}
	for _, v := range values {
		key := strings.Trim(v.Key.String(), `"'`)
		f, ok := fields[key]
		if !ok {
			return c.errorf(v.Key, "unknown key %s%s; did you mean %s?", path, key, c.nearest(path+key))
		}
		if err := c.value(path+key, v.Value, f.Type); err != nil {
			return err
		}
	}
	return nil
}

func (c keyChecker) value(path string, n ast.Node, t reflect.Type) error {
	if !leaf(t) {
		return c.check(path+".", n, t)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return c.errorf(n, "%s has no value", path)
	case *ast.AnchorNode, *ast.AliasNode:
		return c.errorf(n, "%s: anchors and aliases are not used in recipes; write the value", path)
	case *ast.FloatNode:
		if whole(t) && n.Value != float64(int64(n.Value)) {
			return c.errorf(n, "%s must be a whole number, is %s", path, n.String())
		}
	case *ast.StringNode:
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && kindName(t) == "a number" || err == nil && whole(t) && f == math.Trunc(f) {
			return nil // 1e-05, which the parser takes for text and the decoder for a number
		}
		if want := kindName(t); want != "" && want != "text" && !reflect.PointerTo(t).Implements(unmarshaler) {
			return c.errorf(n, "%s must be %s, is %q", path, want, n.Value)
		}
	}
	return nil
}

func whole(t reflect.Type) bool { return kindName(t) == "a whole number" }

func kindName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return ""
}

// nearest is the known key with the fewest letters to change. The last part of
// the path weighs more than the section, which people also get wrong.
func (c keyChecker) nearest(key string) string {
	best, distance := "", 1<<30
	last := key[strings.LastIndex(key, ".")+1:]
	for _, k := range c.all {
		d := levenshtein.ComputeDistance(key, k) + 2*levenshtein.ComputeDistance(last, k[strings.LastIndex(k, ".")+1:])
		if d < distance {
			best, distance = k, d
		}
	}
	return best
}
