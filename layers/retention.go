package layers

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/gated_head_norm"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/linear_recurrence"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
)

// Retention is RetNet's gated multi-scale retention: a linear recurrence whose state decays at a
// constant rate, different in each head, with rotary positions (arXiv 2307.08621).
type Retention struct {
	// Heads is H. Head h keeps 1 - 2^(-5-h) of its state per token.
	Heads int `yaml:"heads" json:"heads"`
	// ExpandK is the total width of all heads' keys, relative to the model's width D.
	ExpandK float64 `yaml:"expand_k" json:"expand_k"`
	// ExpandV is the total width of all heads' values, relative to D.
	ExpandV float64 `yaml:"expand_v" json:"expand_v"`
	// RopeBase is the base of the rotary frequencies (arXiv 2104.09864); 0 means no positions.
	RopeBase float64 `yaml:"rope_base" json:"rope_base"`

	init    initializer
	normEps float64
}

// Forward implements Mixer.
func (r Retention) Forward(b *graph.Builder, x graph.Tensor) graph.Tensor {
	d := x.Shape().Cols()
	keys, values := int(r.ExpandK*float64(d)), int(r.ExpandV*float64(d))

	q := linear.Apply(b, x, b.Param("q_proj.weight", r.init.recurrent(d, keys), keys, d))
	k := linear.Apply(b, x, b.Param("k_proj.weight", r.init.recurrent(d, keys), keys, d))
	v := linear.Apply(b, x, b.Param("v_proj.weight", r.init.recurrent(d, values), values, d))
	gate := linear.Apply(b, x, b.Param("g_proj.weight", r.init.recurrent(d, values), values, d))
	if r.RopeBase != 0 {
		q, k = rope.Apply(b, q, keys/r.Heads, r.RopeBase), rope.Apply(b, k, keys/r.Heads, r.RopeBase)
	}
	o := linear_recurrence.ApplyFixed(b, q, k, v, r.logDecay())
	o = gated_head_norm.Apply(b, o, gate, b.Param("g_norm.weight", ones, values/r.Heads), r.normEps)
	return linear.Apply(b, o, b.Param("o_proj.weight", r.init.recurrentOutput(values, d), d, values))
}

// logDecay returns log(1 - 2^(-5-h)) for each head.
func (r Retention) logDecay() []float64 {
	g := make([]float64, r.Heads)
	for h := range g {
		g[h] = math.Log1p(-math.Exp2(-5 - float64(h)))
	}
	return g
}

func (r Retention) validate(d int) error {
	if !(r.RopeBase >= 0) || math.IsInf(r.RopeBase, 0) {
		return fmt.Errorf("rope_base: must be positive, or 0 for no positions, is %v", r.RopeBase)
	}
	if err := recurrentHeads(d, r.Heads, r.ExpandK, r.ExpandV); err != nil {
		return err
	}
	if width := int(r.ExpandK*float64(d)) / r.Heads; r.RopeBase != 0 && width%2 != 0 {
		return fmt.Errorf("expand_k: rotary positions need heads of an even width, is %d", width)
	}
	return nil
}
