package layers

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/linear_swiglu"
	"github.com/sambatrain/sambatrain/graph/ops/swiglu"
)

// SwiGLU is the gated MLP down(silu(gate x) * up x) (arXiv 2002.05202).
type SwiGLU struct {
	// DFF is F, the hidden width.
	DFF int `yaml:"d_ff" json:"d_ff"`

	init initializer
}

// Forward implements Mixer.
func (s SwiGLU) Forward(b *graph.Builder, x graph.Tensor) graph.Tensor {
	d := x.Shape().Cols()
	gate, up := b.Param("gate_proj.weight", s.init.linear(d), s.DFF, d), b.Param("up_proj.weight", s.init.linear(d), s.DFF, d)
	h := s.hidden(b, x, gate, up)
	return linear.Apply(b, h, b.Param("down_proj.weight", s.init.output(s.DFF), d, s.DFF))
}

// hidden is silu(gate x) * up x [B T F].
func (s SwiGLU) hidden(b *graph.Builder, x, gate, up graph.Tensor) graph.Tensor {
	// Without gradients. With few rows a plan fuses the ops in its own way.
	if b.Carries() != nil && x.Shape().Rows() > graph.FewRows {
		return linear_swiglu.Apply(b, x, gate, up)
	}
	products := swiglu.Products{Made: linear_swiglu.SpecOf, Pulled: linear_swiglu.BackwardSpec}
	return products.Apply(b, linear.Apply(b, x, gate), linear.Apply(b, x, up))
}

func (s SwiGLU) validate() error {
	if s.DFF < 1 || s.DFF > maxHidden {
		return fmt.Errorf("d_ff: must be 1 to %d, is %d", maxHidden, s.DFF)
	}
	return nil
}
