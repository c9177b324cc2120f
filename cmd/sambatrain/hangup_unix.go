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

// whileHeard makes a pipe that nobody reads any more, as when the program behind it or a connection
// has ended, the same as a terminal that is gone: SIGHUP. By itself the system would end the
// process in the middle of a step.
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
