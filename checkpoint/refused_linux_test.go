package checkpoint

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRefusedIsNoDamage: a checkpoint that this process can't read for a reason of its own is not
// passed over, which would repeat steps for nothing.
func TestRefusedIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	newest := save(t, r, 2, 2)
	file := filepath.Join(newest.Dir, modelFile)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Error(err)
		}
	}
	none := syscall.Rlimit{Cur: 0, Max: was.Max}
	o := Opener{Watch: func(what string) func() {
		if what != "reading "+file {
			return func() {}
		}
		limit(none)
		return func() { limit(was) }
	}}
	c, skipped, err := o.Newest(dir)
	if c != nil || len(skipped) > 0 || !errors.Is(err, syscall.EMFILE) || !strings.HasPrefix(err.Error(), newest.Dir+": can't be read, which does not mean that it is damaged: ") {
		t.Errorf("%+v, passed over %v, %v", c, skipped, err)
	}
	if c, _, err = Newest(dir); err != nil || c.Step != 2 {
		t.Errorf("afterwards: %+v, %v", c, err)
	}
}
