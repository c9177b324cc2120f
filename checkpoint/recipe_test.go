package checkpoint

import (
	"bytes"
	"path/filepath"
	"testing"
)

// TestRecipe: a checkpoint contains the recipe that it was trained with, with a checksum like all
// its files.
func TestRecipe(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	model, optimizer := tensors(1)
	s := state(4)
	s.Recipe = []byte("name: x\n")
	info, err := r.Save(s, model, optimizer)
	if err != nil {
		t.Fatal(err)
	}
	c := newest(t, dir)
	holds(t, c, 1)
	if text, err := c.ReadRecipe(); err != nil || !bytes.Equal(text, s.Recipe) {
		t.Errorf("%q (%v)", text, err)
	}
	flip(t, filepath.Join(info.Dir, RecipeFile), 2, 1)
	wantError(t, Verify(info.Dir), RecipeFile)
	described, err := Describe(info.Dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = described.ReadRecipe()
	wantError(t, err, filepath.Join(info.Dir, RecipeFile), "the file is corrupt")

	save(t, r, 5, 5)
	if text, err := newest(t, dir).ReadRecipe(); err != nil || text != nil {
		t.Errorf("a checkpoint without a recipe: %q (%v)", text, err)
	}
}
