package checkpoint

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	load := func(info Info) *Checkpoint {
		t.Helper()
		c, err := Load(info.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, again := load(save(t, r, 1, 1)), load(save(t, r, 2, 1))
	d, err := Diff(first, again, nil)
	if err != nil || !d.Same || d.Equal == 0 || len(d.Tensors) > 0 || !strings.Contains(strings.Join(d.State, "\n"), "step: 1 and 2") {
		t.Errorf("%+v (%v)", d, err)
	}
	model, optimizer := tensors(1)
	model[0].Data[5] += 0.5
	model[1].Data[0] = float32(math.NaN())
	model[len(model)-1].Name = "other"
	info, err := r.Save(state(3), model, optimizer)
	if err != nil {
		t.Fatal(err)
	}
	d, err = Diff(load(info), first, nil)
	if err != nil || d.Same {
		t.Fatalf("%+v (%v)", d, err)
	}
	found := map[string]TensorDifference{}
	for _, x := range d.Tensors {
		found[x.Name] = x
	}
	if x := found[model[0].Name]; x.Part != "model" || x.Max != 0.5 || !(x.Relative > 0) {
		t.Errorf("%+v", x)
	}
	if x := found[model[1].Name]; !math.IsNaN(float64(x.Max)) {
		t.Errorf("%+v", x)
	}
	if x := found["other"]; !strings.Contains(x.Note, "is in "+info.Dir+" alone") {
		t.Errorf("%+v", x)
	}
	if len(found) != 4 {
		t.Errorf("%d tensors differ: %+v", len(found), d.Tensors)
	}
	if _, err := json.Marshal(d); err != nil {
		t.Error(err)
	}
}

// TestDiffRecipes: differences between recipes are described by the function that knows recipes, or
// else by their checksums.
func TestDiffRecipes(t *testing.T) {
	model, optimizer := tensors(1)
	saved := func(recipe string) *Checkpoint {
		t.Helper()
		s := state(1)
		s.Recipe, s.RecipeSHA256 = nil, RecipeSHA256([]byte(recipe))
		if recipe != "" {
			s.Recipe = []byte(recipe)
		}
		info, err := lock(t, t.TempDir()).Save(s, model, optimizer)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Load(info.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	words := func(a, b []byte) []string { return []string{string(a) + " and " + string(b)} }
	one, two, none := saved("a: 1"), saved("a: 2"), saved("")
	for name, c := range map[string]struct {
		a, b    *Checkpoint
		recipes func(a, b []byte) []string
		want    string
	}{
		"the same":     {one, saved("a: 1"), words, ""},
		"others":       {one, two, words, "a: 1 and a: 2"},
		"no words":     {one, two, nil, "recipe_sha256: " + one.RecipeSHA256 + " and " + two.RecipeSHA256},
		"without text": {one, none, words, "recipe_sha256: " + one.RecipeSHA256 + " and " + none.RecipeSHA256},
	} {
		d, err := Diff(c.a, c.b, c.recipes)
		if err != nil || !d.Same || strings.Join(d.State, "\n") != c.want {
			t.Errorf("%s: %+v (%v), want %q", name, d, err, c.want)
		}
	}
}
