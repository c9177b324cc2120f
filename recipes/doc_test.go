package recipes_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// keyValues returns the keys of a section and its subsections, with their values, in order.
func keyValues(prefix string, v reflect.Value) (keys []string, values []reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		key, value := prefix+name, v.Field(i)
		_, readsItself := reflect.New(f.Type).Interface().(yaml.BytesUnmarshaler)
		if f.Type.Kind() == reflect.Struct && !readsItself && prefix != "data.mixture[]." {
			k, v := keyValues(key+".", value)
			keys, values = append(keys, k...), append(values, v...)
			continue
		}
		keys, values = append(keys, key), append(values, value)
		if key == "data.mixture" {
			k, v := keyValues(key+"[].", reflect.Zero(f.Type.Elem()))
			keys, values = append(keys, k...), append(values, v...)
		}
	}
	return keys, values
}

// TestDocumentedKeys: docs/recipes.md has every key, in the order of a recipe, and the defaults
// that it states are those of the program.
func TestDocumentedKeys(t *testing.T) {
	text, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+?) \\| (.+) \\|$").FindAllStringSubmatch(string(text), -1)
	documented, meaning := map[string]string{}, map[string]string{}
	var order []string
	for _, r := range rows {
		documented[r[1]], meaning[r[1]] = r[2], r[3]
		if r[1] != "extends" {
			order = append(order, r[1])
		}
	}
	if _, ok := documented["extends"]; !ok {
		t.Error("docs/recipes.md: extends is missing")
	}
	keys, values := keyValues("", reflect.ValueOf(recipes.Defaults()))
	if !slices.Equal(order, keys) {
		for _, k := range keys {
			if _, ok := documented[k]; !ok {
				t.Errorf("docs/recipes.md: %s is missing", k)
			}
		}
		t.Errorf("docs/recipes.md has the keys\n%s, want\n%s", strings.Join(order, "\n"), strings.Join(keys, "\n"))
	}
	for key, values := range map[string][]string{
		"run.device": recipes.Devices, "run.dtype": recipes.DTypes, "run.shard": recipes.Shards, "run.reduce_dtype": recipes.ReduceDTypes,
		"optim.schedule": optim.Schedules, "optim.decayed": optim.Decays, "model.layers.pattern": layers.Mixers, "model.init": {layers.InitMamba, layers.InitLlama},
		"data.generate.task": {data.TaskPasskey, data.TaskPhonebook}, "data.generate.loss": {data.LossAnswer, data.LossAll},
	} {
		for _, v := range values {
			if !strings.Contains(meaning[key], "`"+v+"`") {
				t.Errorf("docs/recipes.md: %s may be %s, which its line leaves out", key, v)
			}
		}
	}
	for i, key := range keys {
		quoted, ok := strings.CutPrefix(documented[key], "`")
		quoted, ok2 := strings.CutSuffix(quoted, "`")
		if !ok || !ok2 || strings.Contains(quoted, "`") {
			if !values[i].IsZero() {
				t.Errorf("docs/recipes.md: the default of %s is %s, want %v", key, documented[key], values[i])
			}
			continue
		}
		want, err := json.Marshal(values[i].Interface())
		if err != nil {
			t.Fatal(err)
		}
		var got any = quoted // text has no quotes in the document
		var number any
		if json.Unmarshal([]byte(quoted), &number) == nil {
			got = number
		}
		var is any
		if err := json.Unmarshal(want, &is); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, is) {
			t.Errorf("docs/recipes.md: the default of %s is %s, want %s", key, quoted, want)
		}
	}
}
