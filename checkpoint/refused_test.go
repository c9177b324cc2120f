package checkpoint

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
)

// TestRefused tells errors about this process or its file server from those about a damaged file.
func TestRefused(t *testing.T) {
	for err, want := range map[error]bool{
		os.ErrPermission: true, syscall.EACCES: true, syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOMEM: true, syscall.ETIMEDOUT: true,
		os.ErrNotExist: false, syscall.EIO: false, io.ErrUnexpectedEOF: false,
	} {
		if got := Refused(fmt.Errorf("a part: %w", &os.PathError{Op: "read", Path: "x", Err: err})); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
