package checkpoint

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestLockAfterAnotherUser: what a killed process of another user left doesn't keep this one out of
// a folder that both may write.
func TestLockAfterAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to act as two users")
	}
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{lockFile: "", ownerFile: `{"pid": 7}` + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for parent := dir; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() {
		const nobody = 65534
		runtime.LockOSThread() // the thread ends with the goroutine: only it is another user
		if err := syscall.Setfsuid(nobody); err != nil {
			done <- err
			return
		}
		r, err := Lock(dir)
		if err == nil {
			err = r.Unlock()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
