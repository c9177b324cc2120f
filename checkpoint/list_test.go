package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRunOf: whatever leads to a checkpoint, its run is the folder above its own.
func TestRunOf(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(root, "runs", "x")
	step := filepath.Join(run, checkpointsDir, stepName(6))
	if err := os.MkdirAll(step, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(step, filepath.Join(root, "best")); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct{ from, dir, want string }{
		{root, step, run},
		{root, "runs/x/checkpoints/step-00000006/", filepath.Join("runs", "x")},
		{root, "best", run},
		{step, ".", run},
		{run, "checkpoints/step-00000006", run},
		{filepath.Join(run, checkpointsDir), "step-00000006", run},
		{filepath.Join(root, "runs"), "../runs/x/checkpoints/step-00000006", run},
	} {
		t.Chdir(c.from)
		got, name, err := RunOf(c.dir)
		if err != nil || got != c.want || name != "step-00000006" {
			t.Errorf("from %s, %s lies in %s as %s (%v), want %s", c.from, c.dir, got, name, err, c.want)
		}
	}
	if _, _, err := RunOf("nowhere"); err == nil {
		t.Error("finds the run of a folder that is not there")
	}
}
