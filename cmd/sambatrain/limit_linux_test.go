package main

import (
	"os/signal"
	"strconv"
	"syscall"
)

const canLimitFiles = true

// limitFiles limits the size of this process's files to a number of bytes, which resembles a full
// disk as far as a single file is concerned.
func limitFiles(bytes string) error {
	n, err := strconv.ParseUint(bytes, 10, 64)
	if err != nil {
		return err
	}
	// Otherwise the kernel's signal would arrive before the error.
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n})
}
