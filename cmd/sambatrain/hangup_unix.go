//go:build unix

package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// whileHeard returns a writer to f that sends this process SIGHUP, as when a terminal is gone, once f
// is a pipe that nobody reads any more, for example because the reading program or a connection has
// ended. Otherwise the system would end the process in the middle of a step.
func whileHeard(f *os.File) io.Writer {
	signal.Ignore(syscall.SIGPIPE)
	return &heard{file: f}
}

type heard struct {
	file *os.File
	gone sync.Once
}

func (h *heard) Write(p []byte) (int, error) {
	n, err := h.file.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		h.gone.Do(func() { _ = syscall.Kill(os.Getpid(), syscall.SIGHUP) }) // a process may always signal itself
	}
	return n, err
}
