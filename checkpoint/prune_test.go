package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func steps(infos []Info) []int64 {
	var s []int64
	for _, i := range infos {
		s = append(s, i.Step)
	}
	return s
}

func TestPrune(t *testing.T) {
	for _, test := range []struct {
		name                string
		steps               []int64
		damaged             []int64
		keepLast, keepEvery int
		kept                []int64
	}{
		{"nothing saved", nil, nil, 2, 0, nil},
		{"fewer than kept", []int64{1, 2}, nil, 3, 0, []int64{1, 2}},
		{"last two", []int64{1, 2, 3, 4}, nil, 2, 0, []int64{3, 4}},
		{"last one", []int64{1, 2, 3}, nil, 1, 0, []int64{3}},
		{"every", []int64{0, 5, 10, 15, 20, 25}, nil, 1, 10, []int64{0, 10, 20, 25}},
		{"every, none old", []int64{10, 20, 30}, nil, 1, 10, []int64{10, 20, 30}},
		{"by number, not by name", []int64{99999999, 100000000}, nil, 1, 0, []int64{100000000}},
		{"newest good is old", []int64{1, 2, 3, 4}, []int64{3, 4}, 2, 0, []int64{2, 3, 4}},
		{"only the oldest is good", []int64{1, 2, 3}, []int64{2, 3}, 1, 0, []int64{1, 3}},
		{"old damaged one goes", []int64{1, 2, 3}, []int64{1}, 1, 0, []int64{3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			r := lock(t, dir)
			for _, step := range test.steps {
				save(t, r, step, int(step))
			}
			for _, step := range test.damaged {
				if err := os.Truncate(filepath.Join(dir, checkpointsDir, stepName(step), modelFile), 20); err != nil {
					t.Fatal(err)
				}
			}
			removed, err := r.Prune(test.keepLast, test.keepEvery)
			if err != nil {
				t.Fatal(err)
			}
			infos, err := List(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := steps(infos); !slices.Equal(got, test.kept) {
				t.Errorf("kept %v, want %v", got, test.kept)
			}
			var gone []int64
			for _, s := range test.steps {
				if !slices.Contains(test.kept, s) {
					gone = append(gone, s)
				}
			}
			if got := steps(removed); !slices.Equal(got, gone) {
				t.Errorf("removed %v, want %v", got, gone)
			}
			if names := leftovers(t, dir); len(names) > 0 {
				t.Errorf("left over: %q", names)
			}
		})
	}
}

func TestPruneNeedsAGoodCheckpoint(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	for step := range int64(3) {
		info := save(t, r, step, 1)
		if err := os.Remove(filepath.Join(info.Dir, modelFile)); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := r.Prune(1, 0)
	wantError(t, err, "nothing was removed", stepName(2), modelFile)
	if infos, _ := List(dir); len(infos) != 3 || len(removed) != 0 {
		t.Errorf("%d checkpoints left, removed %v", len(infos), removed)
	}
}

// TestPruneVerifiesAfresh: a process that did not write the files reads them; equal sizes are not
// enough.
func TestPruneVerifiesAfresh(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	second := save(t, r, 2, 2)
	if err := r.Unlock(); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(second.Dir, modelFile), 100, 0)
	again := lock(t, dir)
	if removed, err := again.Prune(1, 0); err != nil || len(removed) != 0 {
		t.Errorf("removed %v (%v), want nothing: step 1 is the newest good one", removed, err)
	}
}

func TestPruneRefuses(t *testing.T) {
	r := lock(t, t.TempDir())
	for _, k := range [][2]int{{0, 0}, {-1, 0}, {1, -1}} {
		_, err := r.Prune(k[0], k[1])
		wantError(t, err, "keep_last")
	}
}

// TestPruneKilledAtEveryOperation: a partly removed checkpoint never looks like a damaged one.
func TestPruneKilledAtEveryOperation(t *testing.T) {
	for at := 1; ; at++ {
		dir := t.TempDir()
		r := lock(t, dir)
		for step := range int64(4) {
			save(t, r, step, int(step))
		}
		fs := newFaultyFS(at, errKilled, true)
		r.fs = fs
		_, err := r.Prune(1, 0)
		infos, listErr := List(dir)
		if listErr != nil {
			t.Fatal(listErr)
		}
		for _, info := range infos {
			if err := Verify(info.Dir); err != nil {
				t.Errorf("operation %d: %v", at, err)
			}
		}
		if c := newest(t, dir); c.Step != 3 {
			t.Errorf("operation %d: newest is step %d", at, c.Step)
		}
		if err := r.Unlock(); err != nil {
			t.Fatal(err)
		}
		lock(t, dir)
		if names := leftovers(t, dir); len(names) > 0 {
			t.Errorf("operation %d: left over: %q", at, names)
		}
		if !fs.hit() {
			if err != nil {
				t.Error(err)
			}
			return
		}
		if err == nil {
			t.Errorf("operation %d: no error", at)
		}
	}
}

// TestLeftoverInUse: what a prune could not remove, because another program has it open, doesn't
// keep the next save from being made. The next prune says so again.
func TestLeftoverInUse(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	inUse := func() {
		fs := newFaultyFS(0, syscall.ENOTEMPTY, false)
		fs.undeletable = removingPrefix + stepName(1)
		r.fs = fs
	}
	inUse()
	save(t, r, 2, 2)
	_, err := r.Prune(1, 0)
	wantError(t, err, "prune checkpoints: ", removingPrefix+stepName(1))
	save(t, r, 3, 3)
	_, err = r.Prune(1, 0)
	wantError(t, err, "prune checkpoints: ", removingPrefix+stepName(1))
	if c := newest(t, dir); c.Step != 3 || len(leftovers(t, dir)) != 1 {
		t.Errorf("newest is step %d, left over %q", c.Step, leftovers(t, dir))
	}
	r.fs = noSyncFS{}
	save(t, r, 4, 4)
	if _, err := r.Prune(1, 0); err != nil || len(leftovers(t, dir)) > 0 {
		t.Errorf("when it is no longer in use: %v, left over %q", err, leftovers(t, dir))
	}
}

// TestOwnLeftoverInUse: a save needs the name of its own leftover.
func TestOwnLeftoverInUse(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	saving := savingPrefix + stepName(2)
	if err := os.Mkdir(filepath.Join(dir, checkpointsDir, saving), 0o777); err != nil {
		t.Fatal(err)
	}
	fs := newFaultyFS(0, syscall.ENOTEMPTY, false)
	fs.undeletable = saving
	r.fs = fs
	model, optimizer := tensors(2)
	_, err := r.Save(state(2), model, optimizer)
	wantError(t, err, "save checkpoint of step 2: ", saving, syscall.ENOTEMPTY.Error())
}
