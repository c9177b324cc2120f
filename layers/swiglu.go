package layers

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
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
	gate := linear.Apply(b, x, b.Param("gate_proj.weight", s.init.linear(d), s.DFF, d))
	up := linear.Apply(b, x, b.Param("up_proj.weight", s.init.linear(d), s.DFF, d))
	h := swiglu.Apply(b, gate, up)
	return linear.Apply(b, h, b.Param("down_proj.weight", s.init.output(s.DFF), d, s.DFF))
}

func (s SwiGLU) validate() error {
	if s.DFF < 1 || s.DFF > maxHidden {
		return fmt.Errorf("d_ff: must be 1 to %d, is %d", maxHidden, s.DFF)
	}
	return nil
}
