package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sambatrain/sambatrain/recipes"
)

// wrongFlag is the error of a flag that there isn't, or whose value it can't take.
func wrongFlag(c *cobra.Command, err error) error {
	text := err.Error()
	var number *strconv.NumError
	if errors.As(err, &number) {
		text = strings.Replace(text, number.Error(), number.Err.Error(), 1)
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		text += flagHint(c, unknown.GetSpecifiedName())
	}
	return &usageError{fmt.Errorf("%s; see `%s --help`", text, c.CommandPath())}
}

// flagKeys are the flags that many commands have for keys of a recipe.
var flagKeys = map[string]string{"steps": "train.steps", "device": "run.device", "dtype": "run.dtype", "threads": "run.threads"}

// flagHint is what to use in place of a flag that a command does not have: --set for the key of a
// recipe, or the flag with the nearest name.
func flagHint(c *cobra.Command, name string) string {
	if key, ok := flagKeys[name]; ok && c.Flags().Lookup("set") != nil {
		return fmt.Sprintf(" (use --set %s=...)", key)
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if near := recipes.Nearest(name, known); near != "" {
		return fmt.Sprintf(" (did you mean --%s?)", near)
	}
	return ""
}

// unknownCommand is the error of a command that parent does not have.
func unknownCommand(parent *cobra.Command, name string) error {
	hint := ""
	parent.SuggestionsMinimumDistance = 2
	if near := parent.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf(" (did you mean %q?)", near[0])
	}
	return &usageError{fmt.Errorf("unknown command %q for %q%s; see `%s --help`", name, parent.CommandPath(), hint, parent.CommandPath())}
}
