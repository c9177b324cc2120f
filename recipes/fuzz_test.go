package recipes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/recipes"
)

// FuzzParse: no text makes the reader panic, each error is one line, and a valid recipe can be
// written out and read again, and gives a model.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "quickstart.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 4096 {
			f.Add(string(text), "train.batch_size=8")
		}
	}
	f.Fuzz(func(t *testing.T, text, set string) {
		r, err := recipes.Parse([]byte(text), "no-such-folder/fuzz.yaml", set)
		if err != nil {
			if r != nil || strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Errorf("recipe %v and error %q", r, err)
			}
			return
		}
		if err := r.Validate(); err != nil {
			t.Errorf("valid, and then: %v", err)
		}
		out, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := recipes.Parse(out, "resolved.yaml")
		if err != nil {
			t.Fatalf("not read again: %v\n%s", err, out)
		}
		if diff := cmp.Diff(r, again, sameRecipe...); diff != "" {
			t.Fatalf("read again, it differs:\n%s\n%s", diff, out)
		}
		if _, err := r.Model.Sublayers(); err != nil {
			t.Errorf("valid, but its stack: %v", err)
		}
	})
}
