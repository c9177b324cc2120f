package layers

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add_bias"
	"github.com/sambatrain/sambatrain/graph/ops/chunk_attention"
	"github.com/sambatrain/sambatrain/graph/ops/gated_update"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/offset_scale"
	"github.com/sambatrain/sambatrain/graph/ops/rms_norm"
	"github.com/sambatrain/sambatrain/graph/ops/rotary_bias"
	"github.com/sambatrain/sambatrain/graph/ops/silu"
	"github.com/sambatrain/sambatrain/graph/ops/swiglu"
)

// Mega is Mega-S6: the gated attention of Mega (arXiv 2209.10655) with a selective state space in
// place of its moving average (Samba, table 3).
type Mega struct {
	// ZDim is Z, the width of the queries and keys of its single head.
	ZDim int `yaml:"z_dim" json:"z_dim"`
	// Chunk is the number of tokens per attention chunk, counted from a row's start; attention
	// doesn't cross chunks.
	Chunk int `yaml:"chunk" json:"chunk"`
	// DState is N, the number of states per channel.
	DState int `yaml:"d_state" json:"d_state"`
	// DConv is the number of taps of the causal convolution.
	DConv int `yaml:"d_conv" json:"d_conv"`
	// DTRank is R, the rank of the time step's projection; auto is ceil(D/32).
	DTRank Auto `yaml:"dt_rank" json:"dt_rank"`

	init    initializer
	normEps float64
}

func (m Mega) replacesStream() {}

// Forward implements StreamMixer.
func (m Mega) Forward(b *graph.Builder, x graph.Tensor) graph.Tensor {
	d, z := x.Shape().Cols(), m.ZDim
	normed := rms_norm.Apply(b, x, b.Param("norm.weight", ones, d), m.normEps)
	v := silu.Apply(b, m.project(b, "v_proj", normed, d))

	var moved graph.Tensor
	b.Scope("move", func() {
		s := s6{state: m.DState, taps: m.DConv, rank: m.DTRank.Or((d + 31) / 32), init: m.init}
		moved = silu.Apply(b, s.forward(b, normed, graph.Tensor{}))
	})
	mx := m.project(b, "mx_proj", moved, 3*d+z)
	update, shared := b.Columns(mx, 0, d), b.Columns(mx, d, d+z)
	reset, own := b.Columns(mx, d+z, 2*d+z), b.Columns(mx, 2*d+z, 3*d+z)

	qk := offset_scale.Apply(b, silu.Apply(b, shared), b.Param("gamma", megaNormal, 2, z), b.Param("beta", zeros, 2, z))
	o := chunk_attention.Apply(b, b.Columns(qk, 0, z), b.Columns(qk, z, 2*z), v, m.bias(b, x.Shape()))
	h := b.Add(own, m.project(b, "h_proj", swiglu.Apply(b, reset, o), d))
	return gated_update.Apply(b, x, update, h)
}

// project is a linear layer with a bias.
func (m Mega) project(b *graph.Builder, name string, x graph.Tensor, out int) graph.Tensor {
	in := x.Shape().Cols()
	y := linear.Apply(b, x, b.Param(name+".weight", m.init.mega(in), out, in))
	return add_bias.Apply(b, y, b.Param(name+".bias", zeros, out))
}

// bias returns the bias for each distance within a chunk, or within a row if that is shorter. In
// the stateful form a sequence continues beyond the call's tokens.
func (m Mega) bias(b *graph.Builder, stream graph.Shape) graph.Tensor {
	distances := m.Chunk
	if b.Carries() == nil && len(stream) == 3 {
		distances = min(distances, stream[1])
	}
	return rotary_bias.Apply(b,
		b.Param("rel_pos_bias.alpha", megaNormal, 1, m.ZDim),
		b.Param("rel_pos_bias.beta", megaNormal, 1, m.ZDim), distances)
}

func (m Mega) validate() error {
	switch {
	case m.ZDim < 2 || m.ZDim > maxWidth || m.ZDim%2 != 0:
		return fmt.Errorf("z_dim: rotary positions need an even one, 2 to %d, is %d", maxWidth, m.ZDim)
	case m.Chunk < 1 || m.Chunk > maxChunk:
		return fmt.Errorf("chunk: must be 1 to %d, is %d", maxChunk, m.Chunk)
	}
	return validateS6(m.DState, m.DConv)
}
