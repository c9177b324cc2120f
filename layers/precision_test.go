package layers_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/layers"
)

// TestFloat32Sublayers: half of a small model, none of others.
func TestFloat32Sublayers(t *testing.T) {
	for _, c := range []struct{ depth, width, want int }{
		{1, 32, 0}, {2, 32, 1}, {3, 32, 1}, {4, 32, 2}, {7, 32, 3}, {8, 192, 4}, {12, 256, 6}, {13, 32, 0}, {24, 32, 0}, {8, 257, 0},
	} {
		m := layers.Defaults()
		m.DModel, m.Layers.Repeat = c.width, c.depth
		m.Layers.Pattern = []layers.Place{{Mixer: "mlp"}}
		if got := m.Float32Sublayers(); got != c.want {
			t.Errorf("%d sublayers of width %d: %d in float32, want %d", c.depth, c.width, got, c.want)
		}
	}
}

func TestRounds(t *testing.T) {
	p := layers.Precision{Mixed: true, Float32Sublayers: 10}
	for name, want := range map[string]bool{
		"model.embeddings.weight": true, "model.layers.0.mixer.in_proj.weight": false, "model.layers.9.norm.weight": false, "model.layers.10.mixer.in_proj.weight": true,
	} {
		if got := p.Rounds(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if (layers.Precision{Float32Sublayers: 3}).Rounds("model.embeddings.weight") {
		t.Error("float32 rounds")
	}
}
