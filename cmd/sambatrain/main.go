// Command sambatrain trains hybrid state-space and attention language models.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sambatrain/sambatrain/internal/train"
)

// Exit codes. README.md documents them.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	// exitStopped: a signal came, the run was saved and can be resumed. It is
	// sysexits' EX_TEMPFAIL, which schedulers take as "run me again".
	exitStopped = 75
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main with an exit code, so that tests can call it as a program.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first signal, the second one ends the process as signals do.
	context.AfterFunc(ctx, stop)
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintln(os.Stderr, "sambatrain:", err)
	}
	var stopped *train.Stopped
	var usage *usageError
	switch {
	case errors.As(err, &stopped):
		return exitStopped
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}
