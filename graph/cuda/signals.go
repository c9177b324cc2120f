//go:build linux

package cuda

import (
	"syscall"
	"time"
	"unsafe"
)

// sigaction is what the kernel keeps for a signal: struct kernel_sigaction, whose layout
// amd64 and arm64 share.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// action returns what a signal does, and makes it do another thing where to is not nil.
func action(s syscall.Signal, to *sigaction) (was sigaction, err error) {
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(&was)), unsafe.Sizeof(was.mask), 0, 0)
	if e != 0 {
		err = e
	}
	return was, err
}

// repairSignals gives Go's handlers back the flags that Go set. NVRTC's front end sets
// handlers of its own for SIGINT, SIGTERM and SIGXFSZ with signal(2), and puts Go's back
// with it too, which loses SA_ONSTACK: a signal that finds Go code running then ends the
// process with a fatal error of Go's runtime instead of being told to the program. SIGURG,
// which no library touches, shows what Go's handler and its flags are.
func repairSignals() error {
	want, err := action(syscall.SIGURG, nil)
	if err != nil {
		return err
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGXFSZ} {
		is, err := action(s, nil)
		if err != nil {
			return err
		}
		if is.handler == want.handler && is.flags != want.flags {
			if _, err := action(s, &want); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepSignals repairs the handlers until the function that it returns is called, and once
// more then. A compilation takes seconds, of which the front end has the first
// milliseconds, so that repairing at its end alone would leave the process open to a
// signal in most of that time.
func keepSignals() (stop func() error) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(2 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				_ = repairSignals() // the last call's error is told
			}
		}
	}()
	return func() error {
		close(done)
		<-ended
		return repairSignals()
	}
}
