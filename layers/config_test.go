package layers

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// samba returns a small model with a bit of everything.
func samba() Model {
	m := Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF, m.Attention.Window = 61, 32, 48, 12
	m.Layers = Stack{Pattern: []Place{{Mixer: "mamba"}, {Mixer: "mlp"}, {Mixer: "swa"}, {Mixer: "mlp"}}, Repeat: 2}
	return m
}

func TestSettings(t *testing.T) {
	for _, name := range Mixers {
		if _, err := Settings(name); err != nil {
			t.Errorf("settings of %s: %v", name, err)
		}
	}
	if _, err := Settings("swaa"); err == nil || !strings.Contains(err.Error(), `no mixer "swaa" (did you mean swa?); the mixers are mamba`) {
		t.Errorf("settings of swaa: error is %v", err)
	}
}

// TestPlaces: a place overrides its mixer's settings at that place only.
func TestPlaces(t *testing.T) {
	m := samba()
	m.Attention = Attention{Heads: 8, KVHeads: 0, RopeBase: 10000, Window: 12}
	m.Layers = Stack{Repeat: 2, Pattern: []Place{
		{Mixer: "mlp"},
		{Mixer: "mlp", Settings: map[string]any{"d_ff": uint64(64)}},
		{Mixer: "swa"},
		{Mixer: "attn"},
		{Mixer: "swa", Settings: map[string]any{"window": uint64(3), "kv_heads": uint64(2), "head_dim": uint64(6), "rope_base": 0.0}},
		{Mixer: "mamba", Settings: map[string]any{"dt_rank": uint64(5), "expand": 1.5}},
		{Mixer: "mamba", Settings: map[string]any{"dt_rank": "auto", "d_state": 8.0}},
	}}
	stack, err := m.Sublayers()
	if err != nil {
		t.Fatal(err)
	}
	if len(stack) != 14 {
		t.Fatalf("%d sublayers", len(stack))
	}
	in := initializer{InitMamba, 32, 14}
	want := []Sublayer{
		{"mlp", SwiGLU{DFF: 48, init: in}},
		{"mlp", SwiGLU{DFF: 64, init: in}},
		{"swa", Attention{Heads: 8, KVHeads: 8, HeadDim: 4, RopeBase: 10000, Window: 12, init: in}},
		{"attn", Attention{Heads: 8, KVHeads: 8, HeadDim: 4, RopeBase: 10000, init: in}},
		{"swa", Attention{Heads: 8, KVHeads: 2, HeadDim: 6, Window: 3, init: in}},
		{"mamba", Mamba{Expand: 1.5, DState: 16, DConv: 4, DTRank: 5, init: in}},
		{"mamba", Mamba{Expand: 2, DState: 8, DConv: 4, init: in}},
	}
	for i, s := range stack {
		if w := want[i%7]; s != w {
			t.Errorf("sublayer %d is %+v, want %+v", i, s, w)
		}
	}
	if m.MLP.DFF != 48 || m.Attention.Window != 12 {
		t.Errorf("the model's own settings changed: %+v", m)
	}
}

// TestNormEps: the model's norm_eps is also that of the norms inside mixers.
func TestNormEps(t *testing.T) {
	m := samba()
	m.NormEps = 0.25
	m.Layers = Stack{Repeat: 1, Pattern: []Place{{Mixer: "gla"}, {Mixer: "retention"}, {Mixer: "mega"}}}
	stack, err := m.Sublayers()
	if err != nil {
		t.Fatal(err)
	}
	got := []float64{stack[0].Mixer.(GLA).normEps, stack[1].Mixer.(Retention).normEps, stack[2].Mixer.(Mega).normEps}
	if want := []float64{0.25, 0.25, 0.25}; !slices.Equal(got, want) {
		t.Errorf("epsilons are %v, want %v", got, want)
	}
}

// TestDecays: a head of retention keeps 1 - 2^(-5-h) of its state.
func TestDecays(t *testing.T) {
	for h, g := range (Retention{Heads: 4}).logDecay() {
		if want := []float64{31. / 32, 63. / 64, 127. / 128, 255. / 256}[h]; !(math.Abs(math.Exp(g)-want) <= 1e-15) {
			t.Errorf("head %d keeps %v, want %v", h, math.Exp(g), want)
		}
	}
}

func TestModelErrors(t *testing.T) {
	override := func(mixer string, settings map[string]any) func(m *Model) {
		return func(m *Model) { m.Layers.Pattern[1] = Place{mixer, settings} }
	}
	for _, c := range []struct {
		change func(m *Model)
		want   string
	}{
		{func(m *Model) { m.VocabSize = 0 }, "model.vocab_size: must be 1 to 16777216, is 0"},
		{func(m *Model) { m.VocabSize = math.MaxInt }, "model.vocab_size: must be 1 to 16777216"},
		{func(m *Model) { m.VocabSize, m.DModel = 1<<24, 1<<20 }, "model.vocab_size: an embedding of 16777216 x 1048576 is larger"},
		{func(m *Model) { m.DModel = -3 }, "model.d_model: must be 1 to 1048576, is -3"},
		{func(m *Model) { m.NormEps = 0 }, "model.norm_eps: must be positive and finite in float32, is 0"},
		{func(m *Model) { m.NormEps = 1e-60 }, "model.norm_eps: must be positive and finite in float32, is 1e-60"},
		{func(m *Model) { m.NormEps = math.NaN() }, "model.norm_eps: must be positive"},
		{func(m *Model) { m.NormEps = 1e60 }, "model.norm_eps: must be positive"},
		{func(m *Model) { m.Init = "" }, `model.init: must be mamba or llama, is ""`},
		{func(m *Model) { m.Layers.Pattern = nil }, "model.layers.pattern: must name at least one mixer: mamba, attn, swa, mlp"},
		{func(m *Model) { m.Layers.Repeat = 0 }, "model.layers.repeat: must be at least 1, is 0"},
		{func(m *Model) { m.Layers.Repeat = math.MaxInt }, "model.layers.repeat: 9223372036854775807 times 4 sublayers are more than 10000"},
		{func(m *Model) { m.Layers.Pattern[2].Mixer = "lstm" }, `model.layers.pattern[2]: no mixer "lstm"; the mixers are mamba`},
		{func(m *Model) { m.Attention.Heads = 0 }, "model.attention.heads: must be 1 to 1048576, is 0"},
		{func(m *Model) { m.Attention.Heads = 3 }, "model.attention.heads: d_model 32 is not a multiple of 3 heads; set head_dim"},
		{func(m *Model) { m.Attention.KVHeads = 3 }, "model.attention.kv_heads: 4 query heads are not a multiple of 3"},
		{func(m *Model) { m.Attention.KVHeads = -1 }, "model.attention.kv_heads: must be at least 1, or 0"},
		{func(m *Model) { m.Attention.KVHeads = 8 }, "model.attention.kv_heads: 4 query heads are not a multiple of 8"},
		{func(m *Model) { m.Attention.HeadDim = -2 }, "model.attention.head_dim: must be 1 to 1048576, or 0"},
		{func(m *Model) { m.Attention.HeadDim = 7 }, "model.attention.head_dim: rotary positions need an even one, is 7"},
		{func(m *Model) { m.Attention.Heads, m.Attention.HeadDim = 1<<15, 1<<15 }, "model.attention.head_dim: 32768 heads of 32768 are wider than"},
		{func(m *Model) { m.Attention.RopeBase = -1 }, "model.attention.rope_base: must be positive"},
		{func(m *Model) { m.Attention.RopeBase = math.NaN() }, "model.attention.rope_base: must be positive"},
		{func(m *Model) { m.Attention.Window = 0 }, "model.attention.window: swa needs a window of 1 to 16777216 tokens, is 0"},
		{func(m *Model) { m.Attention.Window = 1 << 40 }, "model.attention.window: swa needs a window of 1 to 16777216 tokens, is 1099511627776"},
		{func(m *Model) { m.MLP.DFF = 0 }, "model.mlp.d_ff: must be 1 to"},
		{func(m *Model) { m.Mamba.Expand = 0 }, "model.mamba.expand: 0 times d_model 32 must be 1 to"},
		{func(m *Model) { m.Mamba.Expand = math.NaN() }, "model.mamba.expand: NaN times d_model 32"},
		{func(m *Model) { m.Mamba.Expand = math.Inf(1) }, "model.mamba.expand: +Inf times d_model 32"},
		{func(m *Model) { m.Mamba.Expand = 1.01 }, "model.mamba.expand: 1.01 times d_model 32 is not a whole number of channels"},
		{func(m *Model) { m.Mamba.DState = 65 }, "model.mamba.d_state: must be 1 to 64, is 65"},
		{func(m *Model) { m.Mamba.DConv = 9 }, "model.mamba.d_conv: must be 1 to 8, is 9"},
		{override("mlp", map[string]any{"d_ff": 0}), "model.layers.pattern[1].mlp.d_ff: must be 1 to"},
		{override("mlp", map[string]any{"d_ff": 3.5}), "model.layers.pattern[1]: mlp.d_ff: must be of type int, is number 3.5"},
		{override("mlp", map[string]any{"d_ff": "wide"}), "model.layers.pattern[1]: mlp.d_ff: must be of type int, is string"},
		{override("mlp", map[string]any{"dff": 3}), "model.layers.pattern[1]: mlp: unknown key dff; did you mean d_ff?"},
		{override("attn", map[string]any{"HEADS": 2}), "model.layers.pattern[1]: attn: unknown key HEADS; did you mean heads?"},
		{override("attn", map[string]any{"heads": 4, "Kv_Heads": 2}), "model.layers.pattern[1]: attn: unknown key Kv_Heads; did you mean kv_heads?"},
		{override("mamba", map[string]any{"dt_rank": 0}), "model.layers.pattern[1]: mamba: must be auto or 1 to"},
		{override("swa", map[string]any{"window": 0}), "model.layers.pattern[1].swa.window: swa needs a window"},
	} {
		m := samba()
		c.change(&m)
		if err := m.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("error is %v, want %q", err, c.want)
		}
	}
	// Full attention has no window, so it can't be wrong.
	m := samba()
	m.Layers.Pattern[2].Mixer, m.Attention.Window = "attn", -1
	if err := m.Validate(); err != nil {
		t.Errorf("attn with a window of -1: %v", err)
	}
	// Settings that the stack doesn't use aren't checked.
	m = samba()
	m.Layers.Pattern, m.Attention, m.Mamba = []Place{{Mixer: "mlp"}}, Attention{}, Mamba{}
	if err := m.Validate(); err != nil {
		t.Errorf("a stack of MLPs alone: %v", err)
	}
}

// TestPlaceText: a place and auto survive being written and read, as YAML and as JSON.
func TestPlaceText(t *testing.T) {
	type doc struct {
		Pattern []Place `yaml:"pattern" json:"pattern"`
		Rank    Auto    `yaml:"rank" json:"rank"`
		Auto    Auto    `yaml:"auto" json:"auto"`
	}
	d := doc{[]Place{{Mixer: "mamba"}, {"mlp", map[string]any{"d_ff": uint64(64)}}}, 7, 0}
	text, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("pattern:\n- mamba\n- mlp:\n    d_ff: 64\nrank: 7\nauto: auto\n", string(text)); diff != "" {
		t.Errorf("YAML (-want +got):\n%s", diff)
	}
	var again doc
	if err := yaml.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, again); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
	text, err = json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"pattern":["mamba",{"mlp":{"d_ff":64}}],"rank":7,"auto":"auto"}`; string(text) != want {
		t.Errorf("JSON is %s, want %s", text, want)
	}
	again = doc{}
	if err := yaml.Unmarshal(text, &again); err != nil { // JSON is YAML
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, again); diff != "" {
		t.Errorf("JSON read again (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"pattern: [[mamba]]", "pattern: [{mlp: {d_ff: 1}, swa: {}}]", "pattern: [3]", "rank: 0", "rank: -1", "rank: 1.5", "rank: many", "rank: [1]", `rank: "7"`, fmt.Sprint("rank: ", maxWidth+1)} {
		if err := yaml.Unmarshal([]byte(bad), &doc{}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestAutoOr(t *testing.T) {
	if got := Auto(0).Or(12); got != 12 {
		t.Errorf("auto is %d", got)
	}
	if got := Auto(5).Or(12); got != 5 {
		t.Errorf("5 is %d", got)
	}
}
