package recipes_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

var update = flag.Bool("update", false, "write the errors of testdata/bad anew")

// TestBad: each recipe of testdata/bad fails with exactly the error in the file next to it. The
// growing list of mixers appears as $MIXERS.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d recipes, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".yaml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			_, err := recipes.Load(filepath.ToSlash(file))
			if err == nil {
				t.Fatal("the recipe is accepted")
			}
			got := err.Error() + "\n"
			for _, before := range []string{"the mixers are ", "mixer: "} {
				got = strings.ReplaceAll(got, before+strings.Join(layers.Mixers, ", "), before+"$MIXERS")
			}
			if strings.Count(got, "\n") > 1 {
				t.Errorf("the error has several lines: %q", got)
			}
			if *update {
				if err := os.WriteFile(name+".error", []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".error")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("error is\n%swant\n%s", got, want)
			}
		})
	}
}
