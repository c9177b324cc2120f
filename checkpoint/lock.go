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

// The lock is one file and its holder's name another, because on Windows a locked file cannot be read.
const (
	lockFile  = "lock"
	ownerFile = "lock.json"
)

// owner is lock.json: who holds the lock. It means nothing when the lock is free.
type owner struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// Run is a run directory that this process alone may write. Its methods may be called concurrently.
type Run struct {
	// Recovered says, a line each, what Lock found left over from a killed writer and what it did about it.
	Recovered []string

	dir   string
	lock  *flock.Flock
	owner []byte // what this process wrote into lock.json
	fs    fileSystem
	now   func() time.Time

	maxFile int64 // bytes of tensors in one file

	mu       sync.Mutex
	verified map[string]string // the stamps of folders known to be good
}

// Lock takes the existing run directory runDir for this process and removes what a killed writer left in it. The
// operating system frees the lock when the process ends, however it ends. When another process holds it, the error
// says which one and wraps ErrInUse.
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
		os.Remove(filepath.Join(runDir, ownerFile)) // a part of it is no name
		l.Unlock()
		return nil, err
	}
	if r.Recovered, err = r.recover(); err != nil {
		r.Unlock()
		return nil, err
	}
	return r, nil
}

// Watch has w told of what is written from here on.
func (r *Run) Watch(w Watch) { r.fs = watchedFS{r.fs, w} }

// Dir is the run directory as it was given to Lock.
func (r *Run) Dir() string { return r.dir }

// Unlock frees the run directory for other processes.
func (r *Run) Unlock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The lock file stays: removing it would let two processes each lock a file of that name.
	if r.locked() == nil {
		if err := os.Remove(filepath.Join(r.dir, ownerFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.lock.Unlock()
			return err
		}
	}
	return r.lock.Unlock()
}

// locked is an error when another process may be writing the run: after Unlock, where another process says that it
// holds the lock, as it can where the lock file was deleted or the file system keeps no locks, and where one may have
// said so and gone: neither the name nor the file is there as this process left it.
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
	return os.WriteFile(filepath.Join(r.dir, ownerFile), r.owner, 0o666)
}

// inUse is the error that names the lock's holder. The name may be missing or unreadable in the instant in which the
// holder writes it.
func inUse(runDir string) error {
	var o owner
	text, err := os.ReadFile(filepath.Join(runDir, ownerFile))
	if err != nil || json.Unmarshal(text, &o) != nil || o.PID == 0 {
		return fmt.Errorf("%s: %w by another process", runDir, ErrInUse)
	}
	return fmt.Errorf("%s: %w by process %d on host %s since %s", runDir, ErrInUse, o.PID, o.Host, o.Since.Format(time.RFC3339))
}
