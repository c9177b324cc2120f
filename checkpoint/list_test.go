package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRunOf: however a checkpoint is reached, its run is the folder above its own.
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

// TestNewestWhileARunGoesOn: a checkpoint that is removed while it is being read does not count as
// damaged.
func TestNewestWhileARunGoesOn(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 1, 1)
	over := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		for step := int64(2); ; step++ {
			select {
			case <-over:
				ended <- nil
				return
			default:
			}
			model, optimizer := tensors(2)
			if _, err := r.Save(state(step), model, optimizer); err != nil {
				ended <- err
				return
			}
			if _, err := r.Prune(1, 0); err != nil {
				ended <- err
				return
			}
		}
	}()
	last := int64(0)
	for range 50 {
		c, skipped, err := Newest(dir)
		if err != nil || len(skipped) > 0 || c.Step < last {
			t.Fatalf("%+v after step %d, without %v: %v", c, last, skipped, err)
		}
		last = c.Step
	}
	close(over)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
