//go:build unix

package train

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestHaltedBeforeSteps: a disk that does not answer (simulated by a pipe that nobody writes to) is
// detected while data are prepared, and while metrics and a checkpoint are read.
func TestHaltedBeforeSteps(t *testing.T) {
	silence := func(path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	const after = 300 * time.Millisecond // ten times as long for a disk
	t.Run("data", func(t *testing.T) {
		r := recipe(t, "train.batch_size=8")
		silence(filepath.Join(r.Data.Shards, "manifest.json"))
		haltsWith(t, r, after, "reading "+r.Data.Shards+" has not ended for ")
	})
	t.Run("metrics", func(t *testing.T) {
		r := recipe(t, "train.batch_size=8")
		if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(r.Run.Out, MetricsFile)
		silence(file)
		haltsWith(t, r, after, "reading and cutting "+file+" has not ended for ")
	})
	t.Run("checkpoint", func(t *testing.T) {
		r := recipe(t, "train.batch_size=8")
		if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(newest(t, r.Run.Out).Dir, "model.safetensors")
		silence(file)
		haltsWith(t, r, after, "reading "+file+" has not ended for ")
	})
}
