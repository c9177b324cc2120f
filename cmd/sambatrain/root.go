package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// usageError is an invalid command line, as opposed to a command that failed.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// errReported is a failure that the command's output already reports.
var errReported = errors.New("failed")

// app is what all commands share.
type app struct {
	logLevel, logFormat string
}

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:     "sambatrain",
		Version: version(),
		Short:   "Train hybrid state-space and attention language models",
		Long: `sambatrain pretrains Samba (arXiv 2406.07522) and its relatives from one recipe.

Results go to standard output, progress and logs to standard error.
Exit codes: 0 done, 1 failed, 2 wrong command line, 75 stopped by a signal and saved,
76 another process of the run died or hung.`,
		Example: `  sambatrain pretrain quickstart
  sambatrain generate runs/quickstart --prompt "func main"`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			l, err := a.logger()
			if err == nil {
				slog.SetDefault(l)
			}
			return err
		},
	}
	root.SetVersionTemplate("sambatrain {{.Version}}\n")
	root.SetFlagErrorFunc(wrongFlag)
	f := root.PersistentFlags()
	f.StringVar(&a.logLevel, "log-level", "info", "lowest severity to log: "+strings.Join(runlog.LogLevels, ", "))
	f.StringVar(&a.logFormat, "log-format", "text", "format of log lines and progress: "+strings.Join(runlog.LogFormats, ", "))
	offer(root, "log-level", runlog.LogLevels)
	offer(root, "log-format", runlog.LogFormats)
	cobra.EnableCommandSorting = false // the help lists commands in the order in which they are used
	addGroup(root, "Train:", newPretrain(a), newResume(a), newFinetune(a), newCompare(a), newPlot(), newCheckpoint(a))
	addGroup(root, "Use a model:", newGenerate(a), newServe(a), newEval(a), newExport(a), newImport(a), newLogits(a))
	addGroup(root, "Recipes and data:", newRecipes(), newConfig(), newInspect(), newPlan(), newData(a), newTokenizer(a))
	addGroup(root, "This machine and program:", newDoctor(), newBench(a), newVerify(a), newVersion())
	addCobras(root)
	for _, c := range root.Commands() {
		if c.HasSubCommands() && c.RunE == nil {
			c.Args = cobra.ArbitraryArgs // RunE reports what is wrong with them
			c.RunE = helpOnly
		}
	}
	root.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return unknownCommand(c, args[0])
	}
	root.Args = cobra.ArbitraryArgs
	return root
}

// addGroup adds commands that the help lists under a title.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
	}
	root.AddCommand(commands...)
}

// helpOnly runs a command that only has subcommands.
func helpOnly(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return unknownCommand(c, args[0])
}

// addCobras adds the library's own commands, help and completion, and makes them reject unknown
// arguments.
func addCobras(root *cobra.Command) {
	last := root.Groups()[len(root.Groups())-1].ID
	root.SetHelpCommandGroupID(last)
	root.SetCompletionCommandGroupID(last)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  sambatrain help data prepare"
			c.Args = func(_ *cobra.Command, args []string) error {
				if parent, rest, _ := root.Find(args); len(rest) > 0 {
					return unknownCommand(parent, rest[0])
				}
				return nil
			}
		case "completion":
			for _, shell := range c.Commands() {
				shell.Args = exactArgs()
				shell.Example = fmt.Sprintf("  sambatrain completion %s > completion.%[1]s", shell.Name())
			}
		}
	}
}

// logger writes to standard error.
func (a *app) logger() (*slog.Logger, error) { return a.loggerTo(os.Stderr) }

func (a *app) loggerTo(w io.Writer) (*slog.Logger, error) {
	l, err := runlog.NewLogger(w, a.logLevel, a.logFormat)
	if err != nil {
		return nil, &usageError{err}
	}
	return l, nil
}

// nameOf returns a command's name with those of its parents, as in `data prepare`. Errors already
// begin with the program's.
func nameOf(c *cobra.Command) string {
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
}

// exactArgs is cobra.ExactArgs with an error that says what is expected.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(names) == 0 && len(args) > 0 {
			return &usageError{fmt.Errorf("%s takes no arguments, got %q; see `%s --help`", nameOf(c), args[0], c.CommandPath())}
		}
		if len(args) != len(names) {
			return &usageError{fmt.Errorf("%s needs %s, got %s; see `%s --help`", nameOf(c), strings.Join(names, " "), count(int64(len(args)), "argument"), c.CommandPath())}
		}
		return nil
	}
}

// atLeastOneArg is cobra.MinimumNArgs(1) with an error that says what is expected.
func atLeastOneArg(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return &usageError{fmt.Errorf("%s needs at least one %s; see `%s --help`", nameOf(c), name, c.CommandPath())}
		}
		return nil
	}
}

// checkThreads rejects impossible values of a --threads flag.
func checkThreads(n int) error {
	r := recipes.Defaults().Run
	r.Threads = n
	if err := r.Validate(); err != nil {
		return &usageError{flagNames(err)}
	}
	return nil
}
