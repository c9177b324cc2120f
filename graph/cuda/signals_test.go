//go:build linux

package cuda

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// expectHeard sends the process a signal, and expects the program to receive it.
func expectHeard(t *testing.T, s syscall.Signal) {
	t.Helper()
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, s)
	defer signal.Stop(heard)
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard:
	case <-time.After(10 * time.Second):
		t.Fatalf("%v was not told to the program", s)
	}
}

// The effect of NVRTC's front end on a handler, without NVRTC: signal(2) restores Go's handler with
// only the flag SA_RESTART (and the C library's SA_RESTORER, which is kept unchanged here).
func TestRepairSignals(t *testing.T) {
	const siginfo, onstack = 0x4, 0x08000000
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGXFSZ} {
		was, err := action(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		broken := was
		broken.flags &^= siginfo | onstack
		if _, err := action(s, &broken); err != nil {
			t.Fatal(err)
		}
		if is, _ := action(s, nil); is == was {
			t.Fatalf("%v: not broken: the test shows nothing", s)
		}
		if err := repairSignals(); err != nil {
			t.Fatal(err)
		}
		if is, _ := action(s, nil); is != was {
			t.Fatalf("%v: action %x, want %x", s, is, was)
		}
		expectHeard(t, s)
	}
}

func TestRepairLeavesOthers(t *testing.T) {
	const ignore = 1
	was, err := action(syscall.SIGXFSZ, &sigaction{handler: ignore})
	if err != nil {
		t.Fatal(err)
	}
	defer action(syscall.SIGXFSZ, &was)
	if err := repairSignals(); err != nil {
		t.Fatal(err)
	}
	if is, _ := action(syscall.SIGXFSZ, nil); is.handler != ignore {
		t.Fatalf("an ignored signal has the handler %x now", is.handler)
	}
}

// A process that has compiled a kernel receives signals as before.
func TestSignalsAfterCompiling(t *testing.T) {
	compiler, err := openCompiler()
	if err != nil {
		t.Skipf("no NVRTC: %v", err)
	}
	const source = "extern \"C\" __global__ void f(float* x) { *x = 1; }"
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		was, err := action(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := compiler.translate("signals", source, options("sm_90a", nil)); err != nil {
			t.Fatal(err)
		}
		if is, _ := action(s, nil); is != was {
			t.Fatalf("%v: action %x after compiling, %x before", s, is, was)
		}
		expectHeard(t, s)
	}
}
