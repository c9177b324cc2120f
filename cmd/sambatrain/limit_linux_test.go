package main

import (
	"os/signal"
	"strconv"
	"syscall"
)

const canLimitFiles = true

// limitFiles lets no file of this process grow beyond a number of bytes: a disk that
// is full, as far as one file goes.
func limitFiles(bytes string) error {
	n, err := strconv.ParseUint(bytes, 10, 64)
	if err != nil {
		return err
	}
	// Without this the kernel's signal comes before the error.
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n})
}
