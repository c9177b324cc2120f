package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// ErrInUse is wrapped by Lock's error when another process holds the run directory.
var ErrInUse = errors.New("in use")

// The lock is one file and its holder's name another, because a locked file cannot be read on
// Windows.
const (
	lockFile  = "lock"
	ownerFile = "lock.json"
)

// owner is lock.json: who holds the lock. It has no meaning while the lock is free.
type owner struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// Run is a run directory that only this process may write. Its methods may be called concurrently.
type Run struct {
	// Recovered says, one line each, what Lock found left over from a killed writer and what it did
	// about it.
	Recovered []string

	dir   string
	lock  *flock.Flock
	owner []byte // what this process wrote into lock.json
	fs    fileSystem
	now   func() time.Time

	maxFile int64 // bytes of tensors per file

	mu       sync.Mutex
	verified map[string]string // the stamps of folders known to be good
	left     error             // why the last save could not clean up after an earlier one
}

// Lock locks the existing run directory runDir for this process and removes what a killed writer
// left in it. The operating system releases the lock when the process ends, however it ends. If
// another process holds it, the error says which one and wraps ErrInUse.
func Lock(runDir string) (*Run, error) {
	if info, err := os.Stat(runDir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s: not a directory", runDir)
	}
	l, err := lockAt(filepath.Join(runDir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("%s: lock: %w", runDir, err)
	}
	if l == nil {
		return nil, fmt.Errorf("%w; stop it", inUse(runDir))
	}
	r := &Run{dir: runDir, lock: l, fs: osFS{}, now: time.Now, maxFile: maxFileBytes, verified: map[string]string{}}
	if err := r.writeOwner(); err != nil {
		os.Remove(filepath.Join(runDir, ownerFile)) // a partial file contains no name
		l.Unlock()
		return nil, err
	}
	var left error
	if r.Recovered, left, err = r.recover(); err == nil && left != nil {
		err = fmt.Errorf("%s: something is left over from an earlier process and can't be removed: %w; remove it and try again", runDir, left)
	}
	if err != nil {
		r.Unlock()
		return nil, err
	}
	return r, nil
}

// lockAt locks the file path, or returns nil if another process has it locked.
func lockAt(path string) (*flock.Flock, error) {
	for {
		l := flock.New(path, flock.SetPermissions(0o666))
		if held, err := l.TryLock(); err != nil || !held {
			return nil, err
		}
		if same, err := isAt(l, path); err != nil || same {
			return l, err
		}
		l.Unlock() // Abandon has removed the file after it was opened here
	}
}

// isAt is false if the locked file was removed or replaced, so that another process could lock a
// file with the same name.
func isAt(l *flock.Flock, path string) (bool, error) {
	held, err := l.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(held, there), nil
}

// Watch makes w watch everything that is written from now on.
func (r *Run) Watch(w Watch) { r.fs = watchedFS{r.fs, w} }

// Dir returns the run directory as it was given to Lock.
func (r *Run) Dir() string { return r.dir }

// Unlock releases the run directory for other processes.
func (r *Run) Unlock() error { return r.release(false) }

// Abandon is Unlock for a run that has not begun: it also removes the directory if there is nothing
// but the lock in it. Windows does not remove a locked file; there the directory stays.
func (r *Run) Abandon() error { return r.release(true) }

func (r *Run) release(abandon bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.locked() != nil {
		return r.lock.Unlock()
	}
	if err := os.Remove(filepath.Join(r.dir, ownerFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.lock.Unlock()
		return err
	}
	entries, err := os.ReadDir(r.dir)
	abandon = abandon && err == nil && len(entries) == 1
	if abandon {
		os.Remove(filepath.Join(r.dir, lockFile)) // while it is held: later, it may be another process's
	}
	err = r.lock.Unlock()
	if abandon {
		os.Remove(r.dir) // not if another process has made a lock of its own
	}
	return err
}

// locked returns an error if another process may be writing the run: after Unlock; if another
// process claims the lock, which is possible if the lock file was deleted or the file system
// doesn't support locks; and if one may have done so and ended, that is, if neither the name nor
// the file is as this process left it.
func (r *Run) locked() error {
	if !r.lock.Locked() {
		return fmt.Errorf("%s: no longer locked by this process", r.dir)
	}
	owner, err := os.ReadFile(filepath.Join(r.dir, ownerFile))
	switch {
	case err == nil && bytes.Equal(owner, r.owner):
		return nil
	case err == nil:
		return fmt.Errorf("%w although this process has locked it, so this one stops; was the file %s deleted, or does the file system keep no locks?", inUse(r.dir), lockFile)
	}
	path := filepath.Join(r.dir, lockFile)
	same, err := isAt(r.lock, path)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%s: was deleted or replaced while this process held it; another process may be writing the run, so this one stops", path)
	}
	return nil
}

func (r *Run) writeOwner() error {
	host, err := os.Hostname()
	if err != nil {
		host = "(unknown)"
	}
	text, err := json.Marshal(owner{PID: os.Getpid(), Host: host, Since: r.now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	r.owner = append(text, '\n')
	path := filepath.Join(r.dir, ownerFile)
	// One that a killed process left may belong to another user, who alone may write it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, r.owner, 0o666)
}

// inUse returns the error that names the lock's holder. The name may be missing or unreadable at
// the moment when the holder writes it.
func inUse(runDir string) error {
	var o owner
	text, err := os.ReadFile(filepath.Join(runDir, ownerFile))
	if err != nil || json.Unmarshal(text, &o) != nil || o.PID == 0 {
		return fmt.Errorf("%s: %w by another process", runDir, ErrInUse)
	}
	return fmt.Errorf("%s: %w by process %d on host %s since %s", runDir, ErrInUse, o.PID, o.Host, o.Since.Format(time.RFC3339))
}
