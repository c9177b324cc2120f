package main

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/sambatrain/sambatrain/internal/dist"
)

// TestSpawnExit: the exit code of a started process is that of the run, and is reported again only
// if the process did not stop by itself.
func TestSpawnExit(t *testing.T) {
	for script, want := range map[string]struct {
		code     int
		reported bool
	}{
		"exit 0":                             {},
		"exit 75":                            {code: exitStopped, reported: true},
		"[ $SAMBATRAIN_RANK = 0 ] || exit 3": {code: 3},
		"kill -9 $$":                         {code: exitLost},
	} {
		err := spawnCommand(dist.Topology{Size: 2, Spawn: 2}, func() *exec.Cmd { return exec.Command("sh", "-c", script) })
		var child *dist.ChildError
		if errors.As(err, &child) != (want.code != 0) || child != nil && child.Code != want.code || errors.Is(err, errReported) != want.reported {
			t.Errorf("%s: %v, want code %d", script, err, want.code)
		}
	}
}

// TestSpawnRefused: processes that would not have their own GPU are not started.
func TestSpawnRefused(t *testing.T) {
	for _, c := range []struct {
		gpus   int
		device string
	}{{0, "auto"}, {2, "cpu"}, {1, "cuda"}} {
		if err := spawn(dist.Topology{Size: 2, Spawn: 2}, c.gpus, c.device); err == nil {
			t.Errorf("2 processes on %d GPUs with device %s are started", c.gpus, c.device)
		}
	}
}
