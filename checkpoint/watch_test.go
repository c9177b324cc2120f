package checkpoint

import (
	"strings"
	"testing"
)

// TestWatch: each operation on the disk is told of before it and behind it, one after the other,
// also one that fails.
func TestWatch(t *testing.T) {
	for _, at := range []int{0, 1, 4, 9} {
		dir := t.TempDir()
		r := lock(t, dir)
		fs := newFaultyFS(at, errKilled, false)
		r.fs = fs
		begun, under := 0, ""
		r.Watch(func(what string) func() {
			if under != "" || !strings.Contains(what, dir) {
				t.Errorf("%q begins during %q", what, under)
			}
			under = what
			begun++
			if len(fs.ops) != begun-1 {
				t.Errorf("%q begins behind %q", what, fs.ops[begun-1:])
			}
			return func() {
				if len(fs.ops) != begun {
					t.Errorf("%q ends before its operation", what)
				}
				under = ""
			}
		})
		model, optimizer := tensors(1)
		if _, err := r.Save(state(1), model, optimizer); (err != nil) != (at > 0) {
			t.Errorf("operation %d fails: %v", at, err)
		}
		if under != "" || begun != len(fs.ops) {
			t.Errorf("%d operations were told of, and %q, of %q", begun, under, fs.ops)
		}
	}
}

// TestWatchShare: a share of several processes, too.
func TestWatchShare(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	if err := r.Begin(1); err != nil {
		t.Fatal(err)
	}
	begun, ended := 0, 0
	model, optimizer := tensors(1)
	if _, err := WriteShare(dir, 1, 0, 1, model, optimizer, func(string) func() { begun++; return func() { ended++ } }); err != nil {
		t.Fatal(err)
	}
	if begun < 6 || begun != ended {
		t.Errorf("%d operations began and %d ended", begun, ended)
	}
}
