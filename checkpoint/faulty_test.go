package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// faultyFS makes one operation fail.
type faultyFS struct {
	noSyncFS
	at     int    // the operation that fails, from 1; 0 for none
	err    error  // the error it returns
	killed bool   // all later operations fail too, as if the process had died
	hook   func() // called before the operation at, if set

	undeletable string // the name of a folder that can't be removed, if set

	ops []string
	// What a power failure would destroy: files written to and names created since they were last
	// synced.
	unsyncedFiles, unsyncedNames map[string]bool
}

func newFaultyFS(at int, err error, killed bool) *faultyFS {
	return &faultyFS{at: at, err: err, killed: killed, unsyncedFiles: map[string]bool{}, unsyncedNames: map[string]bool{}}
}

func (f *faultyFS) hit() bool { return f.at > 0 && len(f.ops) >= f.at }

// op counts an operation and returns the error it must fail with.
func (f *faultyFS) op(name, path string) error {
	f.ops = append(f.ops, name+" "+filepath.Base(path))
	if len(f.ops) == f.at && f.hook != nil {
		f.hook()
	}
	if len(f.ops) == f.at || f.killed && f.hit() || name == "removeall" && filepath.Base(path) == f.undeletable {
		return &os.PathError{Op: name, Path: path, Err: f.err}
	}
	return nil
}

func (f *faultyFS) Mkdir(path string) error {
	if err := f.op("mkdir", path); err != nil {
		return err
	}
	if err := f.noSyncFS.Mkdir(path); err != nil {
		return err
	}
	f.unsyncedNames[path] = true
	return nil
}

func (f *faultyFS) Create(path string) (file, error) {
	if err := f.op("create", path); err != nil {
		return nil, err
	}
	under, err := f.noSyncFS.Create(path)
	if err != nil {
		return nil, err
	}
	f.unsyncedNames[path] = true
	return &faultyFile{f, path, under}, nil
}

func (f *faultyFS) SyncDir(path string) error {
	if err := f.op("syncdir", path); err != nil {
		return err
	}
	for name := range f.unsyncedNames {
		if filepath.Dir(name) == path {
			delete(f.unsyncedNames, name)
		}
	}
	return nil
}

func (f *faultyFS) Rename(from, to string) error {
	if err := f.op("rename", from); err != nil {
		return err
	}
	for _, set := range []map[string]bool{f.unsyncedFiles, f.unsyncedNames} {
		for name := range set {
			if rest, ok := strings.CutPrefix(name, from); ok {
				delete(set, name)
				set[to+rest] = true
			}
		}
	}
	f.unsyncedNames[to] = true
	return f.noSyncFS.Rename(from, to)
}

// RemoveAll has already removed something when it fails.
func (f *faultyFS) RemoveAll(path string) error {
	if err := f.op("removeall", path); err != nil {
		if entries, readErr := os.ReadDir(path); readErr == nil && len(entries) > 0 && len(f.ops) == f.at {
			os.Remove(filepath.Join(path, entries[0].Name()))
		}
		return err
	}
	for _, set := range []map[string]bool{f.unsyncedFiles, f.unsyncedNames} {
		for name := range set {
			if strings.HasPrefix(name, path) {
				delete(set, name)
			}
		}
	}
	return f.noSyncFS.RemoveAll(path)
}

// powerFailure destroys everything that was not synced. The new names of renamed folders survive,
// which is the worse case for contents that were not synced before.
func (f *faultyFS) powerFailure(t *testing.T) {
	t.Helper()
	for path := range f.unsyncedFiles {
		if err := os.Truncate(path, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for path := range f.unsyncedNames {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

type faultyFile struct {
	fs   *faultyFS
	path string
	file
}

// Write has already written half of the data when it fails.
func (f *faultyFile) Write(p []byte) (int, error) {
	err := f.fs.op("write", f.path)
	f.fs.unsyncedFiles[f.path] = true
	if err != nil {
		if len(f.fs.ops) != f.fs.at {
			return 0, err
		}
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.fs.op("sync", f.path); err != nil {
		return err
	}
	delete(f.fs.unsyncedFiles, f.path)
	return nil
}

func (f *faultyFile) Close() error {
	closeErr := f.file.Close()
	if err := f.fs.op("close", f.path); err != nil {
		return err
	}
	return closeErr
}

var errKilled = errors.New("killed")
