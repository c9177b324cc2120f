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
	l := flock.New(filepath.Join(runDir, lockFile), flock.SetPermissions(0o666))
	held, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("%s: lock: %w", runDir, err)
	}
	if !held {
		return nil, fmt.Errorf("%w; stop it or choose another folder with --out", inUse(runDir))
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

// Watch makes w watch everything that is written from now on.
func (r *Run) Watch(w Watch) { r.fs = watchedFS{r.fs, w} }

// Dir returns the run directory as it was given to Lock.
func (r *Run) Dir() string { return r.dir }

// Unlock releases the run directory for other processes.
func (r *Run) Unlock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The lock file stays: if it were removed, two processes could each lock a file of that name.
	if r.locked() == nil {
		if err := os.Remove(filepath.Join(r.dir, ownerFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.lock.Unlock()
			return err
		}
	}
	return r.lock.Unlock()
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
	held, err := r.lock.Stat()
	if err != nil {
		return err
	}
	if at, err := os.Stat(path); err != nil || !os.SameFile(held, at) {
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
