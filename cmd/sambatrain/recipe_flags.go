package main

import (
	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/recipes"
)

// recipeFlags are the flags that change a recipe: named ones for what is changed
// most, and --set for every key. A named flag wins over --set, --set over the
// recipe, and the recipe over the defaults.
type recipeFlags struct {
	sets  []string
	named []namedFlag
}

type namedFlag struct {
	flag, key string
}

func (f *recipeFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.sets, "set", nil, "set a recipe's key, as in --set optim.lr=3e-4; may be repeated")
	for _, n := range []struct{ flag, key, usage string }{
		{"out", "run.out", "run directory"},
		{"device", "run.device", "where to compute: cpu"},
		{"dtype", "run.dtype", "type of computation: float32"},
		{"threads", "run.threads", "number of CPU workers; 0 is one a core"},
		{"steps", "train.steps", "number of optimizer steps"},
	} {
		c.Flags().String(n.flag, "", n.usage+" (recipe key "+n.key+")")
		f.named = append(f.named, namedFlag{n.flag, n.key})
	}
}

// assignments are all changes in the order in which they apply.
func (f *recipeFlags) assignments(c *cobra.Command) []string {
	list := f.sets
	for _, n := range f.named {
		if flag := c.Flags().Lookup(n.flag); flag.Changed {
			list = append(list, n.key+"="+flag.Value.String())
		}
	}
	return list
}

func (f *recipeFlags) load(c *cobra.Command, name string) (*recipes.Recipe, error) {
	return recipes.Load(name, f.assignments(c)...)
}

// completeRecipe offers the built-in recipes and YAML files.
func completeRecipe(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return recipes.Names(), cobra.ShellCompDirectiveDefault
}
