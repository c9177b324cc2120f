package train

import (
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/recipes"
)

// idle are keys of a recipe that change no bit of what a run computes; here also says where it
// happens.
var (
	idle = []string{"run.out", "run.threads", "run.log_every", "run.memory_budget", "run.timeout", "run.tune_products"}
	here = append(slices.Clone(idle), "run.device")
)

// changes are the keys of a recipe that differ from those of a checkpoint's, or why that
// can't be said.
func changes(is *recipes.Recipe, was []byte) []string {
	before, err := parseWritten(was, "its recipe")
	if err != nil {
		return []string{err.Error()}
	}
	return differences(is, before, here, func(d recipes.Difference) string { return fmt.Sprintf("%s: %s (was %s)", d.Key, d.A, d.B) })
}

// RecipeDifferences are the keys in which the recipes of two checkpoints differ, or why that can't
// be said, a line each. Keys that change no result are left out.
func RecipeDifferences(a, b []byte) []string {
	var both [2]*recipes.Recipe
	for i, text := range [][]byte{a, b} {
		var err error
		if both[i], err = parseWritten(text, "recipe"); err != nil {
			return []string{err.Error()}
		}
	}
	return differences(both[0], both[1], idle, recipes.Difference.String)
}

// differences describes the keys in which a and b differ, without those of except.
func differences(a, b *recipes.Recipe, except []string, describe func(recipes.Difference) string) []string {
	all, err := recipes.Differences(a, b)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, d := range all {
		if !slices.Contains(except, d.Key) {
			list = append(list, describe(d))
		}
	}
	return list
}
