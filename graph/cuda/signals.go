//go:build linux

package cuda

import (
	"syscall"
	"time"
	"unsafe"
)

// sigaction is the kernel's state for a signal: struct kernel_sigaction, whose layout is the same
// on amd64 and arm64.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// action returns a signal's action, and replaces it if to is not nil.
func action(s syscall.Signal, to *sigaction) (was sigaction, err error) {
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(&was)), unsafe.Sizeof(was.mask), 0, 0)
	if e != 0 {
		err = e
	}
	return was, err
}

// repairSignals restores the flags that Go set for its signal handlers. NVRTC's front end installs
// its own handlers for SIGINT, SIGTERM and SIGXFSZ with signal(2), and restores Go's with
// signal(2), too, which loses SA_ONSTACK: a signal that arrives while Go code is running then ends
// the process with a fatal error of Go's runtime instead of being delivered to the program. SIGURG,
// which no library changes, shows what Go's handler and its flags are.
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

// keepSignals repairs the handlers until the returned function is called, and once more then. A
// compilation takes seconds, and the front end only the first milliseconds of it: repairing at its
// end alone would leave the process exposed to a signal for most of that time.
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
				_ = repairSignals() // the last call's error is reported
			}
		}
	}()
	return func() error {
		close(done)
		<-ended
		return repairSignals()
	}
}
