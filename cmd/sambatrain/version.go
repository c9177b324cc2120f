package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the program's version",
		Example: "  sambatrain version\n  sambatrain version --output json",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			return printResult(c, output, thisBuild(), func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "sambatrain", version())
				return err
			})
		},
	}
	outputFlag(c, &output)
	return c
}

// build describes the program's build and platform.
type build struct {
	// Version is the version of the module.
	Version string `json:"version"`
	// Commit is that of the checkout it was built from, if any.
	Commit string `json:"commit,omitempty"`
	Go     string `json:"go"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
}

func thisBuild() build {
	b := build{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = info.Main.Version
	if b.Version == "" {
		b.Version = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Commit = s.Value
		}
	}
	return b
}

// version returns the module's version, the commit of a build from a checkout, and Go's version.
func version() string {
	b := thisBuild()
	if len(b.Commit) >= 12 {
		return b.Version + " " + b.Commit[:12] + " " + b.Go
	}
	return b.Version + " " + b.Go
}
