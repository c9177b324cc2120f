package layers

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/causal_conv"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/selective_scan"
)

// Mamba is the selective state-space mixer (S6, arXiv 2312.00752; Samba §2.1.1).
type Mamba struct {
	// Expand is the inner width C relative to the model's width D.
	Expand float64 `yaml:"expand" json:"expand"`
	// DState is N, the number of states per channel.
	DState int `yaml:"d_state" json:"d_state"`
	// DConv is the number of taps of the causal convolution.
	DConv int `yaml:"d_conv" json:"d_conv"`
	// DTRank is R, the rank of the time step's projection; auto is ceil(D/16).
	DTRank Auto `yaml:"dt_rank" json:"dt_rank"`

	init initializer
}

// Forward implements Mixer.
func (m Mamba) Forward(b *graph.Builder, x graph.Tensor) graph.Tensor {
	d := x.Shape().Cols()
	c := m.inner(d)
	s := s6{state: m.DState, taps: m.DConv, rank: m.DTRank.Or((d + 15) / 16), init: m.init}

	xz := linear.Apply(b, x, b.Param("in_proj.weight", m.init.linear(d), 2*c, d))
	y := s.forward(b, b.Columns(xz, 0, c), b.Columns(xz, c, 2*c))
	return linear.Apply(b, y, b.Param("out_proj.weight", m.init.output(c), d, c))
}

// s6 is a selective state space with the convolution before it (arXiv 2312.00752).
type s6 struct {
	state, taps, rank int // N, J and R
	init              initializer
}

// forward maps u [B T C] to [B T C], gated by silu(z) unless z is the zero Tensor.
func (s s6) forward(b *graph.Builder, u, z graph.Tensor) graph.Tensor {
	c, n, r := u.Shape().Cols(), s.state, s.rank
	u = causal_conv.Apply(b, u,
		b.Param("conv1d.weight", uniform(s.taps), c, 1, s.taps),
		b.Param("conv1d.bias", uniform(s.taps), c))
	dbc := linear.Apply(b, u, b.Param("x_proj.weight", s.init.linear(c), r+2*n, c))
	dt := linear.Apply(b, b.Columns(dbc, 0, r), b.Param("dt_proj.weight", uniform(r), c, r))
	return selective_scan.Apply(b, u, dt,
		b.Param("dt_proj.bias", timeStepBias, c),
		b.Param("A_log", stateDecay(n), c, n),
		b.Columns(dbc, r, r+n), b.Columns(dbc, r+n, r+2*n),
		b.Param("D", ones, c), z)
}

func (m Mamba) inner(d int) int { return int(m.Expand * float64(d)) }

func (m Mamba) validate(d int) error {
	switch {
	case !(m.Expand*float64(d) >= 1 && m.Expand*float64(d) <= maxWidth):
		return fmt.Errorf("expand: %v times d_model %d must be 1 to %d channels", m.Expand, d, maxWidth)
	case m.Expand*float64(d) != math.Trunc(m.Expand*float64(d)):
		return fmt.Errorf("expand: %v times d_model %d is not a whole number of channels", m.Expand, d)
	}
	return validateS6(m.DState, m.DConv)
}

func validateS6(dState, dConv int) error {
	switch {
	case dState < 1 || dState > 64:
		return fmt.Errorf("d_state: must be 1 to 64, is %d", dState)
	case dConv < 1 || dConv > 8:
		return fmt.Errorf("d_conv: must be 1 to 8, is %d", dConv)
	}
	return nil
}
