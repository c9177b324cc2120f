package data

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// checkUnlocked wants no lock left over from a prepare that has ended.
func checkUnlocked(t *testing.T, c Config) {
	t.Helper()
	if _, err := os.Stat(c.Shards + ".lock"); !errors.Is(err, fs.ErrNotExist) && runtime.GOOS != "windows" {
		t.Errorf("the lock is still there: %v", err)
	}
}

func TestPrepareUnlocks(t *testing.T) {
	for name, c := range map[string]Config{
		"done":          testConfig(t, writeFiles(t, corpus(3))),
		"no files":      testConfig(t, t.TempDir()),
		"no text":       testConfig(t, writeFiles(t, map[string]string{"a.txt": ""})),
		"a broken file": testConfig(t, writeFiles(t, map[string]string{"a.jsonl": "{"})),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Prepare(context.Background(), c, nil); (err == nil) != (name == "done") {
				t.Fatal(err)
			}
			checkUnlocked(t, c)
		})
	}
}

// TestPrepareWaits for a process that has the shards locked, and leaves its lock alone.
func TestPrepareWaits(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(3)))
	unlock, err := lockShards(context.Background(), c.Shards+".lock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*lockPoll)
	defer cancel()
	if _, err := Prepare(ctx, c, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a locked folder: %v, want a wait until the deadline", err)
	}
	if _, err := os.Stat(c.Shards + ".lock"); err != nil {
		t.Errorf("who waited has removed the lock: %v", err)
	}
	unlock()
	mustPrepare(t, c)
	checkUnlocked(t, c)
}

// TestPrepareAfterDead: a lock file that nobody has locked, of whatever age and content, stops nobody.
func TestPrepareAfterDead(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(3)))
	if err := os.WriteFile(c.Shards+".lock", []byte("1\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := Prepare(ctx, c, nil); err != nil {
		t.Error(err)
	}
	checkUnlocked(t, c)
}

// TestLockShards: at most one of many holds the lock, although each removes its file.
func TestLockShards(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var (
		wg      sync.WaitGroup
		holders atomic.Int32
	)
	for range 50 {
		wg.Go(func() {
			for range 5 {
				unlock, err := lockShards(context.Background(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
}

// TestUnlockOther leaves alone a lock that replaced one's own.
func TestUnlockOther(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file can't be removed there")
	}
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockShards(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := lockShards(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer second()
	first()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the second lock is gone: %v", err)
	}
}
