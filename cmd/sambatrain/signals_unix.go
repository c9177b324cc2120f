//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// stopSignals ask a command to finish. SIGUSR1 is sent by Slurm ahead of a time limit if a batch
// script asks for it (--signal=USR1@120). SIGHUP says that the terminal is gone; nohup makes
// programs ignore it.
var stopSignals = func() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}()
