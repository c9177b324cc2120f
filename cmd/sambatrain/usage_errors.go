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

// wrongFlag returns the error for a flag that doesn't exist or has an impossible value.
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

// flagKeys maps flags that many commands have to keys of a recipe.
var flagKeys = map[string]string{"steps": "train.steps", "device": "run.device", "dtype": "run.dtype", "threads": "run.threads"}

// flagHint suggests what to use instead of a flag that a command does not have: --set with the key
// of a recipe, or the flag with the nearest name.
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

// unknownCommand returns the error for a command that parent does not have.
func unknownCommand(parent *cobra.Command, name string) error {
	hint := ""
	parent.SuggestionsMinimumDistance = 2
	if near := parent.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf(" (did you mean %q?)", near[0])
	}
	return &usageError{fmt.Errorf("unknown command %q for %q%s; see `%s --help`", name, parent.CommandPath(), hint, parent.CommandPath())}
}
