//go:build unix

package main

import (
	"os"
	"syscall"
)

// stopSignals ask a command to finish. SIGUSR1 is the one that Slurm sends ahead of a
// time limit where a batch script asks for it (--signal=USR1@120).
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1}
