package checkpoint

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestWatch: each operation on the disk is reported before and after it, one after the other, even
// one that fails.
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

// TestWatchShare: the same for a share of several processes.
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

// TestOpenerWatches: each file of a checkpoint that is verified or read is reported, and each
// tensor.
func TestOpenerWatches(t *testing.T) {
	dir := t.TempDir()
	model, optimizer := tensors(1)
	info, err := lock(t, dir).Save(state(1), model, optimizer)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told, under := map[string]bool{}, 0
	o := Opener{Watch: func(what string) func() {
		mu.Lock()
		defer mu.Unlock()
		told[what] = true
		under++
		return func() {
			mu.Lock()
			defer mu.Unlock()
			under--
		}
	}}
	check := func(during string, want ...string) {
		t.Helper()
		for _, what := range want {
			if what = "reading " + what; !told[what] {
				t.Errorf("%s: not told of %s, but of %v", during, what, told)
			}
		}
		if under != 0 {
			t.Errorf("%s: %d operations have not ended", during, under)
		}
		clear(told)
	}
	files := []string{filepath.Join(info.Dir, modelFile), filepath.Join(info.Dir, optimizerFile)}
	manifest := "the manifest of " + info.Dir
	c, skipped, err := o.Newest(dir)
	if err != nil || len(skipped) > 0 {
		t.Fatal(err, skipped)
	}
	check("Newest", append(files, manifest)...)
	read := []string{"the model of " + info.Dir, "the optimizer of " + info.Dir, model[0].Name + " of " + info.Dir, optimizer[0].Name + " of " + info.Dir}
	if err := c.Read(model, optimizer); err != nil {
		t.Fatal(err)
	}
	check("Read", read...)
	if c, err = o.Describe(info.Dir); err != nil {
		t.Fatal(err)
	}
	check("Describe", manifest)
	some := make([]float32, 1)
	err = c.ReadEach(model, optimizer, func(x Tensor, read func(int, []float32) error) error {
		return read(0, some[:min(1, len(x.Data))])
	})
	if err != nil {
		t.Fatal(err)
	}
	check("ReadEach", read...)
}
