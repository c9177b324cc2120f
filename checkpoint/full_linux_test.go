package checkpoint

import (
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

func init() { helpers["full"] = helpFull }

// helpFull saves under a limit on file sizes that the optimizer's file exceeds, and fails unless
// Save reports that.
func helpFull(runDir string) error {
	// Otherwise the kernel's signal would arrive before the error.
	signal.Ignore(syscall.SIGXFSZ)
	r, err := Lock(runDir)
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 1 << 16, Max: 1 << 16}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	model, _ := tensors(2)
	large := []Tensor{{Name: "large", Shape: []int{1 << 20}, Data: make([]float32, 1<<20)}}
	_, err = r.Save(state(2), model, large)
	if !errors.Is(err, syscall.EFBIG) {
		return errors.Join(errors.New("want EFBIG"), err)
	}
	_, err = os.Stdout.WriteString(err.Error())
	return err
}

// TestFileSizeLimit resembles a full disk, as far as a single file is concerned.
func TestFileSizeLimit(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	if err := r.Unlock(); err != nil {
		t.Fatal(err)
	}
	out, err := helper(t, "full", dir).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), optimizerFile) || !strings.Contains(string(out), "file too large") {
		t.Errorf("the error is %q", out)
	}
	if names := leftovers(t, dir); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
	c := newest(t, dir)
	if c.Step != 1 {
		t.Errorf("newest is step %d", c.Step)
	}
	holds(t, c, 1)
}
