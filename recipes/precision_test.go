package recipes_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// TestPrecision: the precision of programs, its description, and that a run in bfloat16 keeps the
// number that auto stands for.
func TestPrecision(t *testing.T) {
	for _, c := range []struct {
		recipe string
		sets   []string
		want   layers.Precision
		kept   recipes.Sublayers
		text   string
	}{
		{"quickstart", nil, layers.Precision{}, recipes.AutoSublayers, "float32"},
		{"quickstart", []string{"run.device=cuda", "run.dtype=tf32", "run.float32_sublayers=2"}, layers.Precision{}, 2, "tf32"},
		{"quickstart", []string{"run.dtype=bfloat16"}, layers.Precision{Float32Sublayers: 4}, 4,
			"bfloat16, float32 in the first 4 of 8 sublayers (run.float32_sublayers: auto, as the model is small)"},
		{"quickstart", []string{"run.device=auto", "run.dtype=bfloat16"}, layers.Precision{Mixed: true, Float32Sublayers: 4}, 4,
			"bfloat16, float32 in the first 4 of 8 sublayers (run.float32_sublayers: auto, as the model is small)"},
		{"quickstart", []string{"run.device=cuda", "run.dtype=bfloat16", "run.float32_sublayers=0"}, layers.Precision{Mixed: true}, 0,
			"bfloat16, float32 in the first 0 of 8 sublayers (run.float32_sublayers; auto is 4)"},
		{"samba-421m", []string{"run.device=cuda", "run.dtype=bfloat16"}, layers.Precision{Mixed: true}, 0, "bfloat16"},
		{"samba-421m", []string{"run.device=cuda", "run.dtype=bfloat16", "run.float32_sublayers=24"}, layers.Precision{Mixed: true, Float32Sublayers: 24}, 24,
			"bfloat16, float32 in the first 24 of 24 sublayers (run.float32_sublayers; auto is 0)"},
	} {
		r, err := recipes.Load(c.recipe, c.sets...)
		if err != nil {
			t.Errorf("%s %v: %v", c.recipe, c.sets, err)
			continue
		}
		if diff := cmp.Diff(c.want, r.Precision()); diff != "" || r.Run.Float32Sublayers != c.kept || r.PrecisionText() != c.text {
			t.Errorf("%s %v: %d is kept of run.float32_sublayers, want %d; %q, want %q; precision (-want +got):\n%s",
				c.recipe, c.sets, r.Run.Float32Sublayers, c.kept, r.PrecisionText(), c.text, diff)
		}
		roundTrip(t, r)
	}
}
