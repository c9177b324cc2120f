package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/plainjson"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

// outputForm is the form of a command's result.
type outputForm string

const (
	outputText     outputForm = "text"
	outputJSON     outputForm = "json"
	outputMarkdown outputForm = "markdown"
)

// outputValue is the flag of an outputForm. It is checked before a long run, not after it.
type outputValue struct {
	form *outputForm
	all  []string
}

// outputFlag adds --output: text, json, and the command's other forms.
func outputFlag(c *cobra.Command, form *outputForm, others ...outputForm) {
	*form = outputText
	v := outputValue{form, []string{string(outputText), string(outputJSON)}}
	for _, o := range others {
		v.all = append(v.all, string(o))
	}
	c.Flags().Var(v, "output", "output format: "+v.names())
	offer(c, "output", v.all)
}

func (v outputValue) names() string {
	last := len(v.all) - 1
	return strings.Join(v.all[:last], ", ") + " or " + v.all[last]
}

func (v outputValue) String() string {
	if v.form == nil { // pflag looks at the zero value
		return ""
	}
	return string(*v.form)
}

// Set implements pflag.Value.
func (v outputValue) Set(s string) error {
	if !slices.Contains(v.all, s) {
		return errors.New("must be " + v.names())
	}
	*v.form = outputForm(s)
	return nil
}

// Type implements pflag.Value.
func (v outputValue) Type() string { return "format" }

// offer completes a flag's values in shells.
func offer(c *cobra.Command, flag string, values []string) {
	complete(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func complete(c *cobra.Command, flag string, by cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, by); err != nil {
		panic(err) // the flag doesn't exist, or already has completions
	}
}

// printResult writes v as JSON, or calls text, depending on --output.
func printResult(c *cobra.Command, output outputForm, v any, text func(w io.Writer) error) error {
	if output == outputText {
		return text(c.OutOrStdout())
	}
	return writeJSON(c.OutOrStdout(), v)
}

// writeJSON writes v for people and programs.
func writeJSON(w io.Writer, v any) error {
	text, err := plainjson.Indented(v)
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// duration formats how long something took, to about three digits.
func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// thousands formats a number for people, as in 2,031,552.
func thousands(n int64) string { return runlog.Thousands(float64(n)) }

// count formats a number of things: 1 document, 2,000 documents.
func count(n int64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return thousands(n) + " " + thing
}
