package train

import (
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/recipes"
)

// here are keys of a recipe that say where a run happens, and change nothing that it
// computes.
var here = []string{"run.out", "run.device", "run.threads", "run.log_every", "run.memory_budget", "run.timeout", "run.tune_products"}

// changes are the keys of a recipe that differ from those of a checkpoint's, or why that
// can't be said.
func changes(is *recipes.Recipe, was []byte) []string {
	before, err := parseWritten(was, "its recipe")
	if err != nil {
		return []string{err.Error()}
	}
	differences, err := recipes.Differences(is, before)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, d := range differences {
		if !slices.Contains(here, d.Key) {
			list = append(list, fmt.Sprintf("%s: %s (was %s)", d.Key, d.A, d.B))
		}
	}
	return list
}
