package layers

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/gated_head_norm"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/linear_recurrence"
	"github.com/sambatrain/sambatrain/graph/ops/log_gate"
)

// GLA is gated linear attention: a linear recurrence whose state decays by a gate for each channel
// and token (arXiv 2312.06635).
type GLA struct {
	// Heads is H.
	Heads int `yaml:"heads" json:"heads"`
	// ExpandK is the total width of all heads' keys, relative to the model's width D.
	ExpandK float64 `yaml:"expand_k" json:"expand_k"`
	// ExpandV is the total width of all heads' values, relative to D.
	ExpandV float64 `yaml:"expand_v" json:"expand_v"`
	// GateLowRank is R, the rank of the gate's projection.
	GateLowRank int `yaml:"gate_low_rank" json:"gate_low_rank"`
	// GateLogitNormalizer divides the gate's logarithm: by default decays are sigmoid^(1/16), near
	// 1.
	GateLogitNormalizer float64 `yaml:"gate_logit_normalizer" json:"gate_logit_normalizer"`

	init    initializer
	normEps float64
}

// Forward implements Mixer.
func (g GLA) Forward(b *graph.Builder, x graph.Tensor) graph.Tensor {
	d, r := x.Shape().Cols(), g.GateLowRank
	keys, values := int(g.ExpandK*float64(d)), int(g.ExpandV*float64(d))

	q := linear.Apply(b, x, b.Param("q_proj.weight", g.init.recurrent(d, keys), keys, d))
	k := linear.Apply(b, x, b.Param("k_proj.weight", g.init.recurrent(d, keys), keys, d))
	v := linear.Apply(b, x, b.Param("v_proj.weight", g.init.recurrent(d, values), values, d))
	gate := linear.Apply(b, x, b.Param("g_proj.weight", g.init.recurrent(d, values), values, d))

	low := linear.Apply(b, x, b.Param("gk_proj.0.weight", g.init.recurrent(d, r), r, d))
	gk := linear.Apply(b, low, b.Param("gk_proj.1.weight", g.init.recurrent(r, keys), keys, r))
	decay := log_gate.Apply(b, gk, b.Param("gk_proj.1.bias", zeros, keys), g.GateLogitNormalizer)

	o := linear_recurrence.Apply(b, q, k, v, decay, g.Heads)
	o = gated_head_norm.Apply(b, o, gate, b.Param("g_norm.weight", ones, values/g.Heads), g.normEps)
	return linear.Apply(b, o, b.Param("o_proj.weight", g.init.recurrentOutput(values, d), d, values))
}

func (g GLA) validate(d int) error {
	switch {
	case g.GateLowRank < 1 || g.GateLowRank > maxWidth:
		return fmt.Errorf("gate_low_rank: must be 1 to %d, is %d", maxWidth, g.GateLowRank)
	case !(g.GateLogitNormalizer > 0) || math.IsInf(g.GateLogitNormalizer, 0):
		return fmt.Errorf("gate_logit_normalizer: must be positive, is %v", g.GateLogitNormalizer)
	}
	return recurrentHeads(d, g.Heads, g.ExpandK, g.ExpandV)
}

// recurrentHeads validates the widths of a linear recurrence's keys and values.
func recurrentHeads(d, heads int, expandK, expandV float64) error {
	if heads < 1 || heads > maxWidth {
		return fmt.Errorf("heads: must be 1 to %d, is %d", maxWidth, heads)
	}
	for _, e := range []struct {
		key    string
		expand float64
	}{{"expand_k", expandK}, {"expand_v", expandV}} {
		width := e.expand * float64(d)
		switch {
		case !(width >= 1) || width > maxWidth || width != math.Trunc(width):
			return fmt.Errorf("%s: %v times d_model %d is not a whole number of channels up to %d", e.key, e.expand, d, maxWidth)
		case int(width)%heads != 0:
			return fmt.Errorf("%s: %d channels are not a multiple of %d heads", e.key, int(width), heads)
		}
	}
	return nil
}
