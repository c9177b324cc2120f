package train

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/dist/disttest"
)

// TestFrom: a run that starts from another run's parameters has them at step 0, and moments of
// zero; a damaged checkpoint is skipped, and a single one may be named.
func TestFrom(t *testing.T) {
	base := recipe(t)
	if _, err := Pretrain(t.Context(), base, quiet()); err != nil {
		t.Fatal(err)
	}
	list, err := checkpoint.List(base.Run.Out)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if err := os.Truncate(filepath.Join(list[2].Dir, "model.safetensors"), 100); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{base.Run.Out: list[1].Dir, list[0].Dir: list[0].Dir} {
		r := recipe(t, "train.from="+from)
		s := newSession(r, quiet(), r.Run.Out)
		if err := s.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.begin(); err != nil {
			t.Fatal(err)
		}
		model, moments, err := s.engine.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		c, err := checkpoint.Load(want)
		if err != nil {
			t.Fatal(err)
		}
		saved := described(s.engine.params, "")
		for i, x := range saved {
			saved[i].Data = make([]float32, len(model[i].Data))
			if model[i].Name != x.Name {
				t.Fatalf("tensor %d is %s, want %s", i, model[i].Name, x.Name)
			}
		}
		if err := c.ReadModel(saved); err != nil {
			t.Fatal(err)
		}
		if !equal(model, saved) {
			t.Errorf("from %s: the parameters are not those of %s", from, want)
		}
		for _, m := range moments {
			if slices.ContainsFunc(m.Data, func(x float32) bool { return x != 0 }) {
				t.Errorf("from %s: %s is not zero", from, m.Name)
			}
		}
		s.close()
	}
	for set, want := range map[string]string{
		"model.mlp.d_ff=40":  "has another model section than this recipe",
		"train.from=nowhere": "train.from: nowhere: no such run directory",
	} {
		r := recipe(t, "train.from="+base.Run.Out, set)
		if _, err := Pretrain(t.Context(), r, quiet()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q", set, err, want)
		}
	}
}

// TestDamagedTogether: the first of several processes finds the checkpoint to continue from for all
// of them, and skips a damaged one.
func TestDamagedTogether(t *testing.T) {
	r := recipe(t, "train.batch_size=8", "train.micro_batch=2")
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	togetherWith(t, text)
	disttest.Run(t, 2, "pretrain")
	want, err := ReadResult(r.Run.Out)
	if err != nil {
		t.Fatal(err)
	}
	good := newest(t, r.Run.Out)
	files, err := filepath.Glob(filepath.Join(good.Dir, "model*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 100); err != nil {
		t.Fatal(err)
	}
	t.Setenv(togetherShard, "none")
	disttest.Run(t, 2, "resume")
	got, err := ReadResult(r.Run.Out)
	if err != nil || got.TrainLoss != want.TrainLoss || got.ValLoss != want.ValLoss {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if again := newest(t, r.Run.Out); again.Step != good.Step {
		t.Errorf("the last checkpoint is of step %d, want %d", again.Step, good.Step)
	}
}
