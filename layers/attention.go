package layers

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/attention"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
)

// Attention is causal attention with rotary positions: over a sliding window for swa (Samba
// §2.1.2), over all earlier tokens for attn.
type Attention struct {
	// Heads is H, the number of query heads.
	Heads int `yaml:"heads" json:"heads"`
	// KVHeads is K, the number of key and value heads, a divisor of Heads; 0 means Heads.
	KVHeads int `yaml:"kv_heads" json:"kv_heads"`
	// HeadDim is a head's width; 0 means d_model / heads.
	HeadDim int `yaml:"head_dim" json:"head_dim"`
	// RopeBase is the base of the rotary frequencies (arXiv 2104.09864); 0 means no positions
	// (NoPE).
	RopeBase float64 `yaml:"rope_base" json:"rope_base"`
	// Window is the number of tokens that a token sees, including itself. attn ignores it.
	Window int `yaml:"window" json:"window"`

	init initializer
}

// Forward implements Mixer.
func (a Attention) Forward(b *graph.Builder, x graph.Tensor) graph.Tensor {
	d, inner, kv := x.Shape().Cols(), a.Heads*a.HeadDim, a.KVHeads*a.HeadDim

	q := linear.Apply(b, x, b.Param("q_proj.weight", a.init.linear(d), inner, d))
	k := linear.Apply(b, x, b.Param("k_proj.weight", a.init.linear(d), kv, d))
	v := linear.Apply(b, x, b.Param("v_proj.weight", a.init.linear(d), kv, d))
	return linear.Apply(b, a.attend(b, q, k, v), b.Param("o_proj.weight", a.init.output(inner), d, inner))
}

// attend computes attention of q and k with their positions. For whole sequences and for a single
// token one op does it all; for longer pieces, and for rows of several documents, the rotation is a
// separate op.
func (a Attention) attend(b *graph.Builder, q, k, v graph.Tensor) graph.Tensor {
	c := attention.Config{Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim, Window: a.Window}
	if a.RopeBase == 0 {
		return attention.Apply(b, q, k, v, c)
	}
	if carry := b.Carries(); carry != nil && !carry.Begins && len(q.Shape()) == 3 && q.Shape()[1] == 1 {
		return attention.ApplyRotary(b, q, k, v, c, attention.Rotation{Turn: rope.CarrySpec(a.HeadDim, a.RopeBase), Base: a.RopeBase})
	}
	if b.Carries() != nil || b.ByDocument() {
		q, k = rope.Apply(b, q, a.HeadDim, a.RopeBase), rope.Apply(b, k, a.HeadDim, a.RopeBase)
		return attention.Apply(b, q, k, v, c)
	}
	r := attention.Rotation{Turn: rope.Spec(a.HeadDim, a.RopeBase), Back: rope.BackwardSpec(a.HeadDim, a.RopeBase), Base: a.RopeBase}
	return b.Apply(attention.RotarySpec(c, r), q, k, v)
}

// resolved fills in what the recipe leaves to be derived, and validates the rest.
func (a Attention) resolved(d int, sliding bool) (Attention, error) {
	switch {
	case a.Heads < 1 || a.Heads > maxWidth:
		return a, fmt.Errorf("heads: must be 1 to %d, is %d", maxWidth, a.Heads)
	case a.KVHeads < 0:
		return a, fmt.Errorf("kv_heads: must be at least 1, or 0 for as many as heads, is %d", a.KVHeads)
	case a.HeadDim < 0 || a.HeadDim > maxWidth:
		return a, fmt.Errorf("head_dim: must be 1 to %d, or 0 for d_model / heads, is %d", maxWidth, a.HeadDim)
	case !(a.RopeBase >= 0) || math.IsInf(a.RopeBase, 0):
		return a, fmt.Errorf("rope_base: must be positive, or 0 for no positions, is %v", a.RopeBase)
	case sliding && (a.Window < 1 || a.Window > maxWindow):
		return a, fmt.Errorf("window: swa needs a window of 1 to %d tokens, is %d", maxWindow, a.Window)
	}
	if a.KVHeads == 0 {
		a.KVHeads = a.Heads
	}
	if a.Heads%a.KVHeads != 0 {
		return a, fmt.Errorf("kv_heads: %d query heads are not a multiple of %d", a.Heads, a.KVHeads)
	}
	if a.HeadDim == 0 {
		if d%a.Heads != 0 {
			return a, fmt.Errorf("heads: d_model %d is not a multiple of %d heads; set head_dim", d, a.Heads)
		}
		a.HeadDim = d / a.Heads
	}
	if a.Heads*a.HeadDim > maxWidth {
		return a, fmt.Errorf("head_dim: %d heads of %d are wider than %d", a.Heads, a.HeadDim, maxWidth)
	}
	if a.RopeBase != 0 && a.HeadDim%2 != 0 {
		return a, fmt.Errorf("head_dim: rotary positions need an even one, is %d", a.HeadDim)
	}
	if !sliding {
		a.Window = 0
	}
	return a, nil
}
