package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSummedChunks: whatever its length, all of a file is written and summed.
func TestSummedChunks(t *testing.T) {
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk + 1} {
		dir := t.TempDir()
		content := bytes.Repeat([]byte("0123456"), n/7+1)[:n]
		got, err := writeBytes(noSyncFS{}, dir, "file", content)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		if want := (fileRecord{Name: "file", Size: int64(n), SHA256: hex.EncodeToString(sum[:])}); got != want {
			t.Errorf("%d bytes: %+v, want %+v", n, got, want)
		}
		if read, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || !bytes.Equal(read, content) {
			t.Errorf("%d bytes: %d were written: %v", n, len(read), err)
		}
	}
}

// TestShapesOfShares: two processes that disagree on a tensor's shape, though not on its size.
func TestShapesOfShares(t *testing.T) {
	piece := func(from, to int, shape ...int) Share {
		return Share{Pieces: []Piece{{Name: "w", Shape: shape, From: from, To: to}}}
	}
	if err := checkShares([]Share{piece(0, 6, 3, 4), piece(6, 12, 3, 4)}); err != nil {
		t.Error(err)
	}
	err := checkShares([]Share{piece(0, 6, 3, 4), piece(6, 12, 4, 3)})
	if err == nil || !strings.Contains(err.Error(), "one process has shape [3 4], another [4 3]") {
		t.Errorf("shapes 3 4 and 4 3: %v", err)
	}
}
