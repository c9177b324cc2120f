package graph_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

// TestModelPlans checks the plans of a real model: no step reads what another has overwritten, and
// the arena is not larger than necessary.
func TestModelPlans(t *testing.T) {
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF, m.Attention.Window = 61, 32, 48, 12
	for _, name := range []string{"mamba", "mlp", "swa", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Layers.Repeat = 3
	for name, mixed := range map[string]bool{"float32": false, "mixed": true} {
		t.Run(name, func(t *testing.T) {
			b := layers.NewBuilder(layers.Precision{Mixed: mixed})
			tokens, targets := b.Input("tokens", graph.Int32, 2, 24), b.Input("targets", graph.Int32, 2, 24)
			loss := m.Loss(b, tokens, targets)
			b.Result("loss", loss)
			if err := b.Gradients(loss); err != nil {
				t.Fatal(err)
			}
			p := compile(t, b)
			untorn(t, p)
			if all := arenaWithoutReuse(p); p.Sizes[graph.Arena] > all*3/4 {
				t.Errorf("the arena has %d of the %d elements that all tensors have", p.Sizes[graph.Arena], all)
			}
			rounded, gradients := 0, map[int]bool{}
			for _, s := range p.Steps {
				for k, o := range s.Out {
					if o.DType == graph.BFloat16 {
						rounded++
					}
					if o.Region == graph.Grads {
						gradients[o.Offset] = true
						if o.DType != graph.Float32 {
							t.Errorf("%s %s: gradient %d is %v", s.Path, s.Spec.Name, k, o.DType)
						}
					}
				}
				for _, in := range s.In {
					if in.Region == graph.Shadow && in.DType != graph.BFloat16 {
						t.Errorf("%s %s: a rounded weight is %v", s.Path, s.Spec.Name, in.DType)
					}
				}
			}
			if mixed != (rounded > 0) || mixed != (p.Sizes[graph.Shadow] > 0) {
				t.Errorf("%d tensors are bfloat16, the rounded weights have %d elements", rounded, p.Sizes[graph.Shadow])
			}
			for _, q := range p.Params {
				if !gradients[q.Offset] {
					t.Errorf("nothing writes the gradient of %s", q.Name)
				}
			}
		})
	}
}
