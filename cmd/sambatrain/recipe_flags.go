package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/recipes"
)

// recipeFlags are the flags that change a recipe: named ones for the most common changes, and --set
// for every key. Named flags take precedence over --set, --set over the recipe, and the recipe over
// the defaults.
type recipeFlags struct {
	sets  []string
	named []namedFlag
}

type namedFlag struct {
	flag, key string
}

// addRun adds the flags of a command that makes a run.
func (f *recipeFlags) addRun(c *cobra.Command) {
	f.add(c)
	f.addSteps(c)
	f.name(c, "out", "run.out", "run directory, by default runs/ and the recipe's name", false)
}

// addSteps adds the flag for the length of training, for commands that execute or count it.
func (f *recipeFlags) addSteps(c *cobra.Command) {
	f.name(c, "steps", "train.steps", "number of optimizer steps", true)
}

func (f *recipeFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.sets, "set", nil, "set a key of the recipe, as `key=value`: optim.lr=3e-4; may be repeated")
	f.name(c, "device", "run.device", "device to compute on: "+strings.Join(recipes.Devices, ", "), false)
	f.name(c, "dtype", "run.dtype", "precision: "+strings.Join(recipes.DTypes, ", "), false)
	f.name(c, "threads", "run.threads", "number of CPU workers; 0 means one per core", true)
	complete(c, "set", completeKey)
	offer(c, "device", recipes.Devices)
	offer(c, "dtype", recipes.DTypes)
}

// name adds a flag for a key.
func (f *recipeFlags) name(c *cobra.Command, flag, key, usage string, number bool) {
	usage += " (recipe key " + key + ")"
	if number {
		c.Flags().Int64(flag, 0, usage)
	} else {
		c.Flags().String(flag, "", usage)
	}
	f.named = append(f.named, namedFlag{flag, key})
}

// assignments returns all changes in the order in which they apply.
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
	return f.loadBy(c, func(sets []string) (*recipes.Recipe, error) { return recipes.Load(name, sets...) })
}

// loadBy loads a recipe with the flags' changes. Errors are expressed in terms of the flags.
func (f *recipeFlags) loadBy(c *cobra.Command, load func(sets []string) (*recipes.Recipe, error)) (*recipes.Recipe, error) {
	for _, n := range f.named {
		if flag := c.Flags().Lookup(n.flag); flag.Changed && flag.Value.String() == "" {
			return nil, &usageError{fmt.Errorf("--%s: is empty; leave it out for the recipe's %s", n.flag, n.key)}
		}
	}
	sets := f.assignments(c)
	if err := checkSets(sets); err != nil {
		return nil, f.flagNames(c, err)
	}
	r, err := load(sets)
	if err != nil {
		return nil, f.flagNames(c, err)
	}
	return r, nil
}

// flagNames replaces keys by the named flags that were given, in an error about them.
func (f *recipeFlags) flagNames(c *cobra.Command, err error) error {
	for _, n := range f.named {
		text, ok := strings.CutPrefix(err.Error(), "--set "+n.key+": "+n.key)
		if ok && c.Flags().Changed(n.flag) {
			return &usageError{&flagError{"--" + n.flag + text, err}}
		}
	}
	// The key is in the flag and in the error about its value.
	for _, s := range f.sets {
		key, _, _ := strings.Cut(s, "=")
		for _, end := range []string{": ", " "} { // not those of a part of its value
			if text, ok := strings.CutPrefix(err.Error(), "--set "+key+": "+key+end); ok {
				return &flagError{"--set " + key + ": " + text, err}
			}
		}
	}
	return err
}

// checkSets distinguishes an assignment that no recipe could accept, which is a usage error, from
// one that doesn't suit the recipe.
func checkSets(sets []string) error {
	r := recipes.Defaults()
	for _, s := range sets {
		if err := r.Set(s); err != nil {
			return &usageError{err}
		}
	}
	return nil
}

// completeKey offers the keys of recipes.
func completeKey(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for _, key := range recipes.Keys() {
		list = append(list, key+"=")
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeRecipe offers the built-in recipes and YAML files.
func completeRecipe(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return recipes.Names(), cobra.ShellCompDirectiveDefault
}
