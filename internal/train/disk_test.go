package train

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// TestWarnOfDisk: a run whose checkpoints have no room on the disk says so, one that has room doesn't.
func TestWarnOfDisk(t *testing.T) {
	r := recipe(t, "checkpoint.keep_last=2", "checkpoint.every=2") // saves steps 2, 4 and 6
	if err := os.MkdirAll(r.Run.Out, 0o777); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := newSession(r, o, r.Run.Out)
	defer s.close()
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if free, known := freeDisk(t.TempDir()); known && free <= 0 {
		t.Errorf("a folder that can be written to has %d bytes free", free)
	}
	checkpoints := 3 * 12 * s.parameters()
	for free, want := range map[int64]bool{checkpoints: false, checkpoints - 1: true, 0: true} {
		log.Reset()
		if err := s.warnOfDisk(free); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "the disk may be full before the run ends") && strings.Contains(log.String(), "checkpoints_to_come=3"); got != want {
			t.Errorf("%d bytes free: %q", free, log.String())
		}
	}
}
