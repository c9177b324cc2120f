//go:build !unix

package main

import (
	"os"
	"syscall"
)

// stopSignals ask a command to finish.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}
