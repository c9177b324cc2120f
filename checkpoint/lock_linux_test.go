package checkpoint

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestLockAfterAnotherUser: what a killed process of another user left doesn't keep this one out of
// a folder that both may write. What only the other one may remove is named.
func TestLockAfterAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to act as two users")
	}
	dir := filepath.Join(t.TempDir(), "run")
	saving := filepath.Join(dir, checkpointsDir, savingPrefix+stepName(2))
	if err := os.MkdirAll(saving, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(dir, lockFile): "", filepath.Join(dir, ownerFile): `{"pid": 7}` + "\n", filepath.Join(saving, modelFile): "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for parent := filepath.Dir(saving); parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	_, err := lockAsNobody(dir)
	wantError(t, err, dir+": something is left over from an earlier process and can't be removed: ", saving, "permission denied", "; remove it and try again")
	if err := os.RemoveAll(saving); err != nil {
		t.Fatal(err)
	}
	r, err := lockAsNobody(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Unlock(); err != nil {
		t.Error(err)
	}
}

// lockAsNobody locks a run as another user, whom permissions apply to.
func lockAsNobody(dir string) (r *Run, err error) {
	const nobody = 65534
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine: it alone is another user
		if err = syscall.Setfsuid(nobody); err == nil {
			r, err = Lock(dir)
		}
	}()
	<-done
	return r, err
}
