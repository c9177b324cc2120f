//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// stopSignals ask a command to finish. SIGUSR1 is the one that Slurm sends ahead of a
// time limit where a batch script asks for it (--signal=USR1@120). SIGHUP says that the terminal
// is gone; nohup has it ignored.
var stopSignals = func() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}()
