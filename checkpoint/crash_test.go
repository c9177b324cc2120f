package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// scenarios are situations in which a save may happen. Each starts from checkpoints of steps 1 and
// 2 with tensors of seeds 1 and 2, and saves the tensors of seed 3.
var scenarios = []struct {
	name string
	step int64
}{{"new step", 3}, {"same step", 2}}

// interrupted runs Save with the fault and checks what no fault may break: Newest always returns a
// complete checkpoint. It reports whether the save was not affected by the fault.
func interrupted(t *testing.T, step int64, fs *faultyFS, after func(*Run, error)) (done bool) {
	t.Helper()
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	save(t, r, 2, 2)
	r.fs = fs
	model, optimizer := tensors(3)
	_, saveErr := r.Save(state(step), model, optimizer)
	last := "nothing"
	if len(fs.ops) > 0 {
		last = fs.ops[max(0, min(fs.at, len(fs.ops))-1)]
	}
	if !fs.hit() {
		if saveErr != nil {
			t.Fatal(saveErr)
		}
		if n := len(fs.unsyncedFiles) + len(fs.unsyncedNames); n > 0 {
			t.Fatalf("a power failure after Save would lose %v %v", fs.unsyncedFiles, fs.unsyncedNames)
		}
	} else if saveErr == nil {
		t.Fatalf("operation %d (%s) failed, Save did not", fs.at, last)
	}
	t.Logf("fault at operation %d, %s: %v", fs.at, last, saveErr)
	after(r, saveErr)

	// A reader without the lock may come at any time. Before the next writer has cleaned up, it may
	// find the step before the one being replaced.
	complete(t, dir, step, 1)
	if err := r.Unlock(); err != nil {
		t.Fatal(err)
	}
	again := lock(t, dir)
	complete(t, dir, step, 2)
	if names := leftovers(t, dir); len(names) > 0 {
		t.Fatalf("left over: %q", names)
	}
	if saveErr == nil {
		if c := newest(t, dir); c.Step != step {
			t.Fatalf("newest is step %d, want %d", c.Step, step)
		}
	}
	if _, err := again.Save(state(step), model, optimizer); err != nil {
		t.Fatalf("save again: %v", err)
	}
	c := newest(t, dir)
	if c.Step != step {
		t.Fatalf("saved again, newest is step %d", c.Step)
	}
	holds(t, c, 3)
	first, err := Load(filepath.Join(dir, checkpointsDir, stepName(1)))
	if err != nil {
		t.Fatalf("an older checkpoint: %v", err)
	}
	holds(t, first, 1)
	return !fs.hit()
}

// complete checks that Newest finds a complete checkpoint of at least step `oldest`: an old one, or
// the new one of `step`.
func complete(t *testing.T, dir string, step, oldest int64) {
	t.Helper()
	c := newest(t, dir)
	if c.Step < oldest {
		t.Fatalf("newest is step %d, want at least %d", c.Step, oldest)
	}
	seed := int(c.Step)
	if c.Step == step {
		model, _ := tensors(3)
		got := blank(model)
		if err := c.ReadModel(got); err != nil {
			t.Fatal(err)
		}
		if got[0].Data[5] == 3 { // the element that holds the seed
			seed = 3
		}
	}
	holds(t, c, seed)
}

// everyFault calls run with the fault at operation 1, 2, ... until a save is not affected by it.
func everyFault(t *testing.T, run func(t *testing.T, step int64, at int) (done bool)) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			for at := 1; !run(t, s.step, at); at++ {
				if at > 200 {
					t.Fatal("the save never ends")
				}
			}
		})
	}
}

func TestKilledAtEveryOperation(t *testing.T) {
	everyFault(t, func(t *testing.T, step int64, at int) bool {
		return interrupted(t, step, newFaultyFS(at, errKilled, true), func(*Run, error) {})
	})
}

func TestPowerFailureAtEveryOperation(t *testing.T) {
	everyFault(t, func(t *testing.T, step int64, at int) bool {
		fs := newFaultyFS(at, errKilled, true)
		return interrupted(t, step, fs, func(*Run, error) { fs.powerFailure(t) })
	})
}

func TestDiskFullAtEveryOperation(t *testing.T) {
	everyFault(t, func(t *testing.T, step int64, at int) bool {
		fs := newFaultyFS(at, syscall.ENOSPC, false)
		return interrupted(t, step, fs, func(r *Run, err error) {
			if err == nil {
				return
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v does not wrap ENOSPC", err)
			}
			wantError(t, err, fmt.Sprintf("save checkpoint of step %d: ", step), r.Dir())
			// The writer is alive, so it has cleaned up by itself.
			complete(t, r.Dir(), step, 2)
			for _, name := range leftovers(t, r.Dir()) {
				if strings.HasPrefix(filepath.Base(name), savingPrefix) {
					t.Errorf("the partial folder %s is left", name)
				}
			}
		})
	})
}

// TestCleanupFailsToo: the error says so, and the next save or the next Lock removes what is left.
func TestCleanupFailsToo(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	fs := newFaultyFS(0, syscall.ENOSPC, true)
	r.fs = fs
	model, optimizer := tensors(2)
	for i, op := range traceOfSave(t) {
		if op == "sync model.safetensors" {
			fs.at = i + 1
		}
	}
	_, err := r.Save(state(2), model, optimizer)
	wantError(t, err, "model.safetensors", "removing the partial", savingPrefix+stepName(2))
	if len(leftovers(t, dir)) != 1 {
		t.Fatal("the cleanup did not fail")
	}
	t.Run("then saves again", func(t *testing.T) {
		r.fs = noSyncFS{}
		save(t, r, 3, 3)
		if names := leftovers(t, dir); len(names) > 0 {
			t.Errorf("left over: %q", names)
		}
	})
	t.Run("then ends", func(t *testing.T) {
		r.fs = newFaultyFS(fs.at, syscall.ENOSPC, true)
		if _, err := r.Save(state(2), model, optimizer); err == nil {
			t.Fatal("no error")
		}
		if err := r.Unlock(); err != nil {
			t.Fatal(err)
		}
		again := lock(t, dir)
		if len(again.Recovered) != 1 || !strings.Contains(again.Recovered[0], savingPrefix+stepName(2)) {
			t.Errorf("recovered %q", again.Recovered)
		}
	})
}

// TestFirstSaveIsDurable: the checkpoints folder itself is new then.
func TestFirstSaveIsDurable(t *testing.T) {
	r := lock(t, t.TempDir())
	fs := newFaultyFS(0, nil, false)
	r.fs = fs
	save(t, r, 1, 1)
	if n := len(fs.unsyncedFiles) + len(fs.unsyncedNames); n > 0 {
		t.Errorf("a power failure after Save would lose %v %v", fs.unsyncedFiles, fs.unsyncedNames)
	}
}

// traceOfSave returns the operations of saving step 2 next to step 1.
func traceOfSave(t *testing.T) []string {
	t.Helper()
	r := lock(t, t.TempDir())
	save(t, r, 1, 1)
	fs := newFaultyFS(0, nil, false)
	r.fs = fs
	save(t, r, 2, 2)
	return fs.ops
}

func TestManifestIsWrittenLast(t *testing.T) {
	var created []string
	for _, op := range traceOfSave(t) {
		if name, ok := strings.CutPrefix(op, "create "); ok {
			created = append(created, name)
		}
	}
	if !slices.Equal(created, checkpointFiles) {
		t.Errorf("files are written in the order %q, want %q", created, checkpointFiles)
	}
}

// TestRecoverSyncsFirst: a process may be killed before it has synced the name of a new checkpoint.
// The one that it replaces is not removed before that is done.
func TestRecoverSyncsFirst(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	replaced := replacedPrefix + stepName(1)
	if err := os.Mkdir(filepath.Join(dir, checkpointsDir, replaced), 0o777); err != nil {
		t.Fatal(err)
	}
	fs := newFaultyFS(0, nil, false)
	r.fs = fs
	if _, left, err := r.recover(); left != nil || err != nil {
		t.Fatal(left, err)
	}
	if want := []string{"syncdir " + checkpointsDir, "removeall " + replaced, "syncdir " + checkpointsDir}; !slices.Equal(fs.ops, want) {
		t.Errorf("operations %q, want %q", fs.ops, want)
	}
}

func TestRecoverLeavesOtherNamesAlone(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	root := filepath.Join(dir, checkpointsDir)
	for _, name := range []string{".hidden", ".saving-notes", "notes", "step-x"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Unlock(); err != nil {
		t.Fatal(err)
	}
	if again := lock(t, dir); len(again.Recovered) > 0 {
		t.Errorf("recovered %q", again.Recovered)
	}
	for _, name := range []string{".hidden", ".saving-notes", "notes", "step-x"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	if c := newest(t, dir); c.Step != 1 {
		t.Errorf("newest is step %d", c.Step)
	}
}

const operationVariable = "CHECKPOINT_TEST_OPERATION"

// helpSave stops before one operation of a save, for the parent to kill it there.
func helpSave(runDir string) error {
	at, err := strconv.Atoi(os.Getenv(operationVariable))
	if err != nil {
		return err
	}
	r, err := Lock(runDir)
	if err != nil {
		return err
	}
	fs := newFaultyFS(at, nil, false)
	fs.hook = waitForKill
	r.fs = fs
	model, optimizer := tensors(3)
	_, err = r.Save(state(2), model, optimizer)
	return err
}

// TestSIGKILL kills another process before each operation of its save, which replaces a checkpoint.
func TestSIGKILL(t *testing.T) {
	for at := 1; ; at++ {
		dir := t.TempDir()
		r := lock(t, dir)
		save(t, r, 1, 1)
		save(t, r, 2, 2)
		if err := r.Unlock(); err != nil {
			t.Fatal(err)
		}
		cmd := helper(t, "save", dir, fmt.Sprintf("%s=%d", operationVariable, at))
		waiting := startHelper(t, cmd)
		if !waiting {
			if err := cmd.Wait(); err != nil {
				t.Fatalf("the helper failed: %v", err)
			}
			holds(t, newest(t, dir), 3)
			if at < 20 {
				t.Fatalf("the save took only %d operations", at-1)
			}
			return
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // returns an error because the process was killed
		complete(t, dir, 2, 1)
		lock(t, dir)
		complete(t, dir, 2, 2)
		if names := leftovers(t, dir); len(names) > 0 {
			t.Fatalf("left over: %q", names)
		}
	}
}
