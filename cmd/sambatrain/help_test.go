package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelp: each command says what it does and shows its usage, and each of its flags says what it
// means.
func TestHelp(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			check(sub)
		}
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short description %q", path, c.Short)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", path, f.Name, f.Usage)
			}
			if name, _ := pflag.UnquoteUsage(f); slices.Contains([]string{"stringArray", "strings", "ints", "int32Slice"}, name) {
				t.Errorf("%s --%s: its value is called %s; quote a better name in its usage", path, f.Name, name)
			}
		})
		if c.HasSubCommands() {
			return
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(c.Example, path) {
				t.Errorf("%s: example %q", path, c.Example)
			}
		}
	}
	check(newRoot())
}
