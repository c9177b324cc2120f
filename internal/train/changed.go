package train

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/internal/wholefile"
	"github.com/sambatrain/sambatrain/recipes"
)

// idle are the keys of a recipe that don't change any bit of a run's results; `here` also contains
// the keys that say where it runs.
var (
	idle = []string{"run.out", "run.threads", "run.log_every", "run.memory_budget", "run.timeout", "run.tune_products"}
	here = append(slices.Clone(idle), "run.device")
)

// changes returns the keys in which a recipe differs from that of a checkpoint, or why they can't
// be determined.
func changes(is *recipes.Recipe, was []byte) []string {
	before, err := parseWritten(was, "its recipe")
	if err != nil {
		return []string{err.Error()}
	}
	return differences(is, before, here, isAndWas)
}

func isAndWas(d recipes.Difference) string { return fmt.Sprintf("%s: %s (was %s)", d.Key, d.A, d.B) }

// unasked returns those of the changes since a checkpoint, whose recipe was trainedBy, that don't come
// from the sets of this resume.
func (s *session) unasked(changed []string, trainedBy []byte) ([]string, error) {
	if len(s.sets) == 0 || len(changed) == 0 {
		return changed, nil
	}
	defer s.halt.disk("reading " + filepath.Join(s.dir, ConfigFile))()
	before, err := LoadConfig(s.dir)
	if err != nil {
		return nil, err
	}
	earlier := changes(before, trainedBy)
	return slices.DeleteFunc(slices.Clone(changed), func(c string) bool { return !slices.Contains(earlier, c) }), nil
}

// asked returns how the sets of this resume change the run's recipe.
func (s *session) asked() ([]recipes.Difference, error) {
	if len(s.sets) == 0 {
		return nil, nil
	}
	defer s.halt.disk("reading " + filepath.Join(s.dir, ConfigFile))()
	was, err := LoadConfig(s.dir)
	if err != nil {
		return nil, err
	}
	return recipes.Differences(s.recipe, was)
}

// resumedWith describes what this resume changes, for the record: the data, and keys of the recipe.
func (s *session) resumedWith() (string, error) {
	asked, err := s.asked()
	if err != nil {
		return "", err
	}
	var list []string
	if s.otherData != "" {
		list = append(list, s.otherData)
	}
	for _, d := range asked {
		if !strings.HasPrefix(s.otherData, d.Key+":") {
			list = append(list, isAndWas(d))
		}
	}
	return strings.Join(list, "; "), nil
}

// keepSets writes the recipe as changed by sets to the run's config, so that the run continues with
// it after a kill. Keys of run are left as they were: they are a matter of each process.
func (s *session) keepSets() error {
	if len(s.sets) == 0 {
		return nil
	}
	return s.together("keep the changed recipe", func() error {
		asked, err := s.asked()
		if err != nil {
			return err
		}
		var kept, here []string
		for _, d := range asked {
			if strings.HasPrefix(d.Key, "run.") {
				here = append(here, isAndWas(d))
			} else {
				kept = append(kept, isAndWas(d))
			}
		}
		if len(here) > 0 {
			s.options.Log.Info("changed for this command alone", "changed", strings.Join(here, "; "))
		}
		if len(kept) == 0 {
			return nil
		}
		s.options.Log.Info("the run keeps the changed recipe", "file", filepath.Join(s.dir, ConfigFile), "changed", strings.Join(kept, "; "))
		return s.keepRecipe()
	})
}

// keepRecipe writes the recipe to the run's config, with the config's keys of run.
func (s *session) keepRecipe() error {
	config := filepath.Join(s.dir, ConfigFile)
	defer s.halt.disk("reading and writing " + config)()
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	was, err := parseWritten(text, config)
	if err != nil {
		return err
	}
	is := *s.recipe
	is.Run = was.Run
	if text, err = is.YAML(); err != nil {
		return err
	}
	return wholefile.Write(config, text)
}

// RecipeDifferences returns the keys in which the recipes of two checkpoints differ, or why they
// can't be determined, one per line. Keys that don't change results are left out.
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

// differences describes the keys in which a and b differ, except those in `except`.
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
