package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// helpLock holds a run's lock until it is killed.
func helpLock(runDir string) error {
	if _, err := Lock(runDir); err != nil {
		return err
	}
	waitForKill()
	return nil
}

func TestLockRefusesASecondProcess(t *testing.T) {
	dir := t.TempDir()
	before := time.Now().Add(-time.Second)
	cmd := helper(t, "lock", dir)
	if !startHelper(t, cmd) {
		t.Fatal("the helper did not get the lock")
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(dir)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("error is %v, want ErrInUse", err)
	}
	wantError(t, err, fmt.Sprintf("%s: in use by process %d on host %s since ", dir, cmd.Process.Pid, host), "; stop it")
	var o owner
	text, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	if o.Since.Before(before.Truncate(time.Second)) || o.Since.After(time.Now()) {
		t.Errorf("held since %v", o.Since)
	}

	// The holder's name may be unreadable for a moment.
	if err := os.WriteFile(filepath.Join(dir, ownerFile), []byte(`{"pi`), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Lock(dir)
	wantError(t, err, dir+": in use by another process; stop it")

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // returns an error because the process was killed
	r := lock(t, dir)
	if err := r.Unlock(); err != nil {
		t.Fatal(err)
	}
	lock(t, dir)
}

func TestLockRefusesThisProcessTwice(t *testing.T) {
	dir := t.TempDir()
	lock(t, dir)
	_, err := Lock(dir)
	wantError(t, err, fmt.Sprintf("in use by process %d", os.Getpid()))
}

func TestLockNeedsADirectory(t *testing.T) {
	dir := t.TempDir()
	_, err := Lock(filepath.Join(dir, "none"))
	wantError(t, err, filepath.Join(dir, "none"))
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path)
	wantError(t, err, path, "not a directory")
}

// TestSecondLockTouchesNothing: an unfinished save belongs to a writer that is alive.
func TestSecondLockTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	temp := filepath.Join(dir, checkpointsDir, savingPrefix+stepName(2))
	if err := os.Mkdir(temp, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrInUse) {
		t.Fatalf("error is %v, want ErrInUse", err)
	}
	newest(t, dir)
	if _, err := os.Stat(temp); err != nil {
		t.Error(err)
	}
}

// TestAbandon: a directory with nothing but the lock is removed, and of several processes that lock
// and abandon it only one holds it at a time.
func TestAbandon(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a locked file is not removed on Windows")
	}
	dir := filepath.Join(t.TempDir(), "run")
	var held, locked atomic.Int32
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 100 {
				if err := os.MkdirAll(dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) { // it was there, and is gone
					t.Error(err)
				}
				r, err := Lock(dir)
				if err != nil { // in use, or removed since it was made
					if !errors.Is(err, ErrInUse) && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
					continue
				}
				if locked.Add(1); held.Add(1) != 1 {
					t.Error("the directory is locked twice")
				}
				held.Add(-1)
				if err := r.Abandon(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if locked.Load() == 0 {
		t.Error("nobody got the lock")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory stays: %v", err)
	}

	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	r := lock(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "notes"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := r.Abandon(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes")); err != nil {
		t.Error(err)
	}
	lock(t, dir)
}

// TestLostLock: a process that may not be the only holder of the lock stops writing, and leaves
// another process's name and unfinished save alone. It continues if only its own files were
// deleted.
func TestLostLock(t *testing.T) {
	other := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, ownerFile), []byte(`{"pid": 7, "host": "elsewhere", "since": "2026-01-02T03:04:05Z"}`), 0o666)
	}
	deleted := func(names ...string) func(dir string) error {
		return func(dir string) error {
			var errs []error
			for _, name := range names {
				errs = append(errs, os.Remove(filepath.Join(dir, name)))
			}
			return errors.Join(errs...)
		}
	}
	for name, c := range map[string]struct {
		lose func(dir string) error
		want string // empty: it continues
	}{
		"another's too":      {other, "in use by process 7 on host elsewhere since"},
		"deleted and taken":  {func(dir string) error { return errors.Join(deleted(lockFile)(dir), other(dir)) }, "in use by process 7 on host elsewhere since"},
		"taken and given up": {deleted(lockFile, ownerFile), "lock: was deleted or replaced"},
		"lock deleted":       {deleted(lockFile), ""},
		"name deleted":       {deleted(ownerFile), ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := lock(t, dir)
			save(t, r, 1, 1)
			if err := c.lose(dir); err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				save(t, r, 2, 2)
				return
			}
			unfinished := filepath.Join(dir, checkpointsDir, savingPrefix+stepName(2))
			if err := os.Mkdir(unfinished, 0o777); err != nil {
				t.Fatal(err)
			}
			model, optimizer := tensors(2)
			_, err := r.Save(state(2), model, optimizer)
			wantError(t, err, dir, c.want, "so this one stops")
			wantError(t, r.Begin(2), c.want)
			_, err = r.Finish(state(2), nil)
			wantError(t, err, c.want)
			_, err = r.Prune(1, 0)
			wantError(t, err, c.want)
			_, named := os.Stat(filepath.Join(dir, ownerFile))
			if err := r.Unlock(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(unfinished); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, ownerFile)); named == nil && err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnlockedRunWritesNothing(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	if err := r.Unlock(); err != nil {
		t.Fatal(err)
	}
	model, optimizer := tensors(2)
	_, err := r.Save(state(2), model, optimizer)
	wantError(t, err, dir, "no longer locked")
	_, err = r.Prune(1, 0)
	wantError(t, err, dir, "no longer locked")
}
