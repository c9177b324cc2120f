package train

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
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
