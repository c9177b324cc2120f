package layers_test

import (
	"math"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/layers"
)

// TestMegaInit: Mega's own projections are initialized as by its authors, its state space as
// Mamba's.
func TestMegaInit(t *testing.T) {
	const d, mixer = 128, "model.layers.0.mixer."
	m := model("mega mlp", 2, 256, d, 192, 1, 0, true)
	for _, name := range []string{"v_proj.weight", "mx_proj.weight", "h_proj.weight", "gamma", "rel_pos_bias.alpha", "rel_pos_bias.beta"} {
		normal(t, name, values(t, m, mixer+name), 0.02)
	}
	for _, name := range []string{"v_proj.bias", "mx_proj.bias", "h_proj.bias", "beta"} {
		constant(t, name, values(t, m, mixer+name), 0)
	}
	for _, name := range []string{"norm.weight", "move.D"} {
		constant(t, name, values(t, m, mixer+name), 1)
	}
	uniform(t, "move.conv1d.weight", values(t, m, mixer+"move.conv1d.weight"), 0.5)
	uniform(t, "move.conv1d.bias", values(t, m, mixer+"move.conv1d.bias"), 0.5)
	uniform(t, "move.x_proj.weight", values(t, m, mixer+"move.x_proj.weight"), 1/math.Sqrt(d))
	uniform(t, "move.dt_proj.weight", values(t, m, mixer+"move.dt_proj.weight"), 1/math.Sqrt(d/32))

	m.Init = layers.InitLlama
	for _, name := range []string{"v_proj.weight", "mx_proj.weight", "h_proj.weight", "move.x_proj.weight"} {
		normal(t, name, values(t, m, mixer+name), math.Sqrt(2/(5.0*d)))
	}
	normal(t, "gamma", values(t, m, mixer+"gamma"), 0.02)
}

func TestMegaSettingsRefused(t *testing.T) {
	for _, c := range []struct {
		change func(m *layers.Model)
		want   string
	}{
		{func(m *layers.Model) { m.Mega.ZDim = 0 }, "model.mega.z_dim: rotary positions need an even one, 2 to 1048576, is 0"},
		{func(m *layers.Model) { m.Mega.ZDim = 7 }, "model.mega.z_dim: rotary positions need an even one, 2 to 1048576, is 7"},
		{func(m *layers.Model) { m.Mega.ZDim = 1 << 21 }, "model.mega.z_dim: rotary positions need"},
		{func(m *layers.Model) { m.Mega.Chunk = 0 }, "model.mega.chunk: must be 1 to 1048576, is 0"},
		{func(m *layers.Model) { m.Mega.Chunk = math.MaxInt }, "model.mega.chunk: must be 1 to 1048576"},
		{func(m *layers.Model) { m.Mega.DState = 65 }, "model.mega.d_state: must be 1 to 64, is 65"},
		{func(m *layers.Model) { m.Mega.DConv = 0 }, "model.mega.d_conv: must be 1 to 8, is 0"},
		{func(m *layers.Model) {
			m.Layers.Pattern[0].Settings = map[string]any{"chunk": -1}
		}, "model.layers.pattern[0].mega.chunk: must be 1 to"},
	} {
		m := model("mega mlp", 1, 61, 32, 48, 1, 0, true)
		c.change(m)
		if err := m.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("the error is %v, want %q", err, c.want)
		}
	}
}
