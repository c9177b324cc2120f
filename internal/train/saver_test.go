package train

import (
	"bytes"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// TestSpoilt: weights and moments that aren't finite are not saved and don't cost a good
// checkpoint, whatever the run keeps.
func TestSpoilt(t *testing.T) {
	r := recipe(t, "checkpoint.keep_last=1")
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	good := newest(t, r.Run.Out)
	for _, c := range []struct {
		region graph.Region
		value  float32
		want   string
	}{
		{graph.Params, float32(math.NaN()), "training has diverged, model.embeddings.weight holds NaN"},
		{graph.Params, float32(math.Inf(-1)), "training has diverged, model.embeddings.weight holds -Inf"},
		{graph.ExpAvgSq, float32(math.Inf(1)), "training has diverged, exp_avg_sq.model.embeddings.weight holds +Inf"},
	} {
		s := newSession(r, quiet(), r.Run.Out)
		var err error
		if s.lock, err = checkpoint.Lock(s.dir); err != nil {
			t.Fatal(err)
		}
		if err := s.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.restore(); err != nil {
			t.Fatal(err)
		}
		at := 0
		for _, p := range s.engine.params {
			if p.Name == "model.embeddings.weight" {
				at = p.Offset + p.Shape.Size() - 1
			}
		}
		if err := s.engine.mem.Write(c.region, at, []float32{c.value}); err != nil {
			t.Fatal(err)
		}
		s.step++
		err = s.lastSave()
		if err == nil || !strings.HasPrefix(err.Error(), "step 7: "+c.want+": no checkpoint is made of it; continue from the one before with `sambatrain resume "+s.dir) {
			t.Errorf("error is %v, want %q", err, c.want)
		}
		s.close()
		if err := s.lock.Unlock(); err != nil {
			t.Fatal(err)
		}
		if still := newest(t, r.Run.Out); still.Step != good.Step {
			t.Errorf("the newest checkpoint is of step %d, want %d", still.Step, good.Step)
		}
		if left, err := filepath.Glob(filepath.Join(r.Run.Out, "checkpoints", "*")); err != nil || len(left) != 1 {
			t.Errorf("%q are there, %v", left, err)
		}
	}
}

// TestOldCheckpointInUse: a run continues if an older checkpoint can't be removed, and says so.
func TestOldCheckpointInUse(t *testing.T) {
	var log bytes.Buffer
	s := openedSession(t, recipe(t, "train.steps=4", "checkpoint.every=1", "checkpoint.keep_last=1"), &log)
	// A folder is in the way where the first checkpoint is moved to before it is removed.
	first := filepath.Join(s.dir, "checkpoints", "step-00000001")
	inUse := true
	s.lock.Watch(func(what string) func() {
		if inUse && what == "renaming "+first {
			if err := os.MkdirAll(filepath.Join(s.dir, "checkpoints", ".removing-step-00000001", "x"), 0o777); err != nil {
				t.Error(err)
			}
		}
		return func() {}
	})
	for s.step = 1; s.step <= 2; s.step++ {
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
		if err := s.finishSave(); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(log.String(), "level=WARN msg=\"older checkpoints could not be removed; the next save tries again\"") || !strings.Contains(log.String(), ".removing-step-00000001") {
		t.Errorf("the log is\n%s", log.String())
	}
	inUse = false
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	if err := s.finishSave(); err != nil {
		t.Fatal(err)
	}
	if list, err := checkpoint.List(s.dir); err != nil || len(list) != 1 || list[0].Step != 3 {
		t.Errorf("%+v, %v", list, err)
	}
}

// openedSession returns a session that logs to log and is ready for its first step.
func openedSession(t *testing.T, r *recipes.Recipe, log io.Writer) *session {
	t.Helper()
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	s := newSession(r, o, r.Run.Out)
	var err error
	if s.lock, _, err = claim(s.dir, o, -1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.close()
		s.lock.Unlock()
	})
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.metrics, err = createMetrics(s.dir); err != nil {
		t.Fatal(err)
	}
	if s.events, err = runlog.CreateEvents(s.dir, 1); err != nil {
		t.Fatal(err)
	}
	s.console = o.Console(runlog.ConsoleOptions{Total: int(r.Train.Steps)})
	return s
}
