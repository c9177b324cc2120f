package layers_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

// sliding returns the paper's model that combines this mixer with sliding windows and MLPs.
func sliding(mixer string, repeat, d, dff, heads, mixerHeads int) *layers.Model {
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF = 32000, d, dff
	m.Attention.Heads, m.Attention.Window = heads, 2048
	m.GLA.Heads, m.Retention.Heads = mixerHeads, mixerHeads
	for _, name := range []string{mixer, "mlp", "swa", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Layers.Repeat = repeat
	return &m
}

func params(t *testing.T, m *layers.Model) []*graph.Param {
	t.Helper()
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	b := layers.NewBuilder(layers.Precision{})
	m.Logits(b, b.Input("tokens", graph.Int32, 1, 8))
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	return b.Params()
}

// TestRecurrentInit: a uniform distribution fills its bound and has a third of its square as
// variance; a normal one exceeds it.
func TestRecurrentInit(t *testing.T) {
	const d, sublayers = 128, 8
	xavier := func(in, out int) float64 { return math.Pow(2, -2.5) * math.Sqrt(6/float64(in+out)) }
	normal := math.Sqrt(2 / (5.0 * d))
	for _, c := range []struct {
		mixer, name  string
		bound, std   float64
		mambaDivides bool
	}{
		{"gla", "q_proj.weight", xavier(d, d/2), normal, false},
		{"gla", "k_proj.weight", xavier(d, d/2), normal, false},
		{"gla", "v_proj.weight", xavier(d, d), normal, false},
		{"gla", "g_proj.weight", xavier(d, d), normal, false},
		{"gla", "gk_proj.0.weight", xavier(d, 16), normal, false},
		{"gla", "gk_proj.1.weight", xavier(16, d/2), normal, false},
		{"gla", "o_proj.weight", xavier(d, d), 1 / (math.Sqrt(d) * sublayers / 2), true},
		{"retention", "q_proj.weight", xavier(d, d), normal, false},
		{"retention", "v_proj.weight", xavier(d, 2*d), normal, false},
		{"retention", "g_proj.weight", xavier(d, 2*d), normal, false},
		{"retention", "o_proj.weight", xavier(d, 2*d), 1 / (math.Sqrt(d) * sublayers / 2), true},
	} {
		for _, scheme := range []string{layers.InitMamba, layers.InitLlama} {
			m := sliding(c.mixer, sublayers/4, d, 32, 4, 4)
			m.Init = scheme
			w := drawn(t, m, "model.layers.0.mixer."+c.name)
			top, squares := 0.0, 0.0
			for _, x := range w {
				top = max(top, math.Abs(float64(x)))
				squares += float64(x) * float64(x)
			}
			std := math.Sqrt(squares / float64(len(w)))
			bound := c.bound
			if c.mambaDivides {
				bound /= math.Sqrt(sublayers)
			}
			if scheme == layers.InitMamba && (top > bound*(1+1e-6) || top < 0.97*bound || !(math.Abs(std*math.Sqrt(3)/bound-1) <= 0.05)) {
				t.Errorf("%s %s: the largest is %g and the deviation %g, want U(-a, a) with a = %g", c.mixer, c.name, top, std, bound)
			}
			if scheme == layers.InitLlama && (top < 2.5*c.std || !(math.Abs(std/c.std-1) <= 0.05)) {
				t.Errorf("%s %s: the largest is %g and the deviation %g, want N(0, %g)", c.mixer, c.name, top, std, c.std)
			}
		}
	}
	for _, c := range []struct {
		mixer, name string
		want        float32
	}{{"gla", "gk_proj.1.bias", 0}, {"gla", "g_norm.weight", 1}, {"retention", "g_norm.weight", 1}} {
		for _, x := range drawn(t, sliding(c.mixer, 1, d, 32, 4, 4), "model.layers.0.mixer."+c.name) {
			if x != c.want {
				t.Fatalf("%s %s is %v, want %v", c.mixer, c.name, x, c.want)
			}
		}
	}
}

func drawn(t *testing.T, m *layers.Model, name string) []float32 {
	t.Helper()
	for _, p := range params(t, m) {
		if p.Name == name {
			w := make([]float32, p.Shape.Size())
			p.Init(rand.New(rand.NewPCG(1, 1)), w)
			return w
		}
	}
	t.Fatalf("no parameter %s", name)
	return nil
}

func TestRecurrentSettingsRefused(t *testing.T) {
	for _, c := range []struct {
		mixer  string
		change func(m *layers.Model)
		want   string
	}{
		{"gla", func(m *layers.Model) { m.GLA.Heads = 0 }, "model.gla.heads: must be 1 to"},
		{"gla", func(m *layers.Model) { m.GLA.Heads = 3 }, "model.gla.expand_k: 16 channels are not a multiple of 3 heads"},
		{"gla", func(m *layers.Model) { m.GLA.ExpandK = 0.3 }, "model.gla.expand_k: 0.3 times d_model 32 is not a whole number"},
		{"gla", func(m *layers.Model) { m.GLA.ExpandV = math.NaN() }, "model.gla.expand_v: NaN times"},
		{"gla", func(m *layers.Model) { m.GLA.GateLowRank = 0 }, "model.gla.gate_low_rank: must be 1 to"},
		{"gla", func(m *layers.Model) { m.GLA.GateLogitNormalizer = 0 }, "model.gla.gate_logit_normalizer: must be positive"},
		{"retention", func(m *layers.Model) { m.Retention.Heads = -1 }, "model.retention.heads: must be 1 to"},
		{"retention", func(m *layers.Model) { m.Retention.ExpandV = 1e9 }, "model.retention.expand_v: 1e+09 times"},
		{"retention", func(m *layers.Model) { m.Retention.RopeBase = -1 }, "model.retention.rope_base: must be positive"},
		{"retention", func(m *layers.Model) { m.Retention.Heads = 32 }, "model.retention.expand_k: rotary positions need heads of an even width, is 1"},
		{"retention", func(m *layers.Model) {
			m.Layers.Pattern[0].Settings = map[string]any{"heads": 5}
		}, "model.layers.pattern[0].retention.expand_k: 32 channels are not a multiple of 5 heads"},
	} {
		m := sliding(c.mixer, 1, 32, 48, 4, 4)
		c.change(m)
		if err := m.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("the error is %v, want %q", err, c.want)
		}
	}
}
