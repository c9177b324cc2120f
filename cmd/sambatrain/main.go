// Command sambatrain trains hybrid state-space and attention language models.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/evaluate"
	"github.com/sambatrain/sambatrain/internal/train"
)

// Exit codes. README.md documents them.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	// exitStopped: a signal arrived, the run was saved and can be resumed. It is sysexits'
	// EX_TEMPFAIL, which schedulers interpret as "run me again".
	exitStopped = 75
	// exitLost: another process of the run died or hung. The last checkpoint is good.
	exitLost = 76
)

func main() { os.Exit(run(os.Args[1:])) }

// errGoesOn ends a command that was stopped by a signal and that can continue from what it has
// done.
var errGoesOn = errors.New("stopped by a signal; the same command continues from here")

// run is main with an exit code, so that tests can call it as a program.
func run(args []string) int {
	root, out := newRoot(), &results{file: os.Stdout}
	root.SetArgs(args)
	root.SetOut(out)
	err := root.Execute()
	if err == nil {
		err = out.err
	}
	return report(err)
}

// report says why a command failed, and returns its exit code.
func report(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("stopped by a signal before there was anything to save; run the same command again")
	}
	if !errors.Is(err, errReported) {
		// Joined errors have one line each.
		fmt.Fprintln(os.Stderr, "sambatrain:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	var stopped *train.Stopped
	var measured *evaluate.Stopped
	var usage *usageError
	var lost *dist.Lost
	var child *dist.ChildError
	switch {
	case errors.As(err, &child):
		return child.Code
	case errors.As(err, &stopped), errors.As(err, &measured), errors.Is(err, errGoesOn):
		return exitStopped
	case errors.As(err, &lost):
		return exitLost
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}
