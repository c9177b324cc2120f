package data

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

const lockPoll = 100 * time.Millisecond

// lockShards locks the file path, and waits while another process has it locked. The operating system
// releases the lock of a process that ended, however it ended; unlock also removes the file.
func lockShards(ctx context.Context, path string) (unlock func(), err error) {
	// Others may take over the file of a process that was killed.
	lock := flock.New(path, flock.SetPermissions(0o666))
	for told := false; ; {
		held, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("data.shards: lock %s: %w", path, err)
		}
		if held && isAt(lock, path) {
			return func() { unlockShards(lock, path) }, nil
		}
		if held {
			lock.Unlock() // the previous holder removed the file after it was opened here
		} else if !told {
			slog.Info("waiting for another process that is preparing the same shards", "lock", path)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("data.shards: lock %s: %w", path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// unlockShards removes the file while it is locked: later, it may be another process's lock. Windows
// doesn't remove open files; there it stays, and locks nothing.
func unlockShards(lock *flock.Flock, path string) {
	if runtime.GOOS != "windows" && isAt(lock, path) {
		os.Remove(path)
	}
	lock.Unlock()
}

// isAt is false if the locked file was removed or replaced, so that another process could lock a
// file with the same name.
func isAt(lock *flock.Flock, path string) bool {
	locked, err := lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(locked, there)
}
