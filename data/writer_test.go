package data

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// fills is a disk that has room for a limited number of bytes.
type fills struct{ left int }

func (f *fills) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// TestFullDisk: wherever the disk becomes full, that is the error, although the Parquet writer
// panics on some failed writes.
func TestFullDisk(t *testing.T) {
	tok, err := NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	write := func(dir string, room int) error {
		w := newSplitWriter(watching(t.Context()), dir, Train, tok, "source", smallLayout, SplitInfo{})
		defer w.abandon()
		if err := w.beginShard(); err != nil {
			return err
		}
		w.out.file = &fills{room}
		for range 3 {
			if err := w.add([]row{{"a document", make([]int32, 50), 50}}); err != nil {
				return err
			}
		}
		err := w.endShard()
		if err == nil {
			size = w.info.Shards[0].Size
		}
		return err
	}
	if err := write(t.TempDir(), 1<<20); err != nil {
		t.Fatal(err)
	}
	for room := 0; room < int(size); room += 37 {
		if err := write(t.TempDir(), room); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
	}
	if runtime.GOOS != "linux" {
		t.Skip("no /dev/full")
	}
	dir := t.TempDir()
	if err := os.Symlink("/dev/full", filepath.Join(dir, "train-00000.parquet")); err != nil {
		t.Fatal(err)
	}
	if err := newSplitWriter(watching(t.Context()), dir, Train, tok, "source", smallLayout, SplitInfo{}).add([]row{{"a", []int32{1}, 1}}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("from the first byte on: %v", err)
	}
}
