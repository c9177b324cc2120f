package graph_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// TestMixedPrecisionGradients: a parameter's gradient is float32, even if another op reads it; that
// op gets a rounded copy if the gradient is an input of a matrix product.
func TestMixedPrecisionGradients(t *testing.T) {
	b := newBuilder()
	b.SetMixed(round.Spec())
	x, p, w := b.Input("x", graph.Float32, 1, 2, 4), b.Param("p", nil, 1, 2, 4), b.Param("w", nil, 1, 2, 4)
	y := b.Add(b.Apply(mul(), b.Apply(scale(2), x), w), p)
	loss := b.Apply(total(2), b.Apply(mirror(), y), b.Apply(scale(3), w))
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	plan := compile(t, b)
	untorn(t, plan)
	for _, s := range plan.Steps {
		for k, in := range s.In {
			if s.Spec.Name == "mul" && in.DType != graph.BFloat16 {
				t.Errorf("mul takes its factor %d as %v", k, in.DType)
			}
		}
		for _, out := range s.Out {
			if out.Region == graph.Grads && out.DType != graph.Float32 {
				t.Errorf("%s writes a gradient as %v", s.Spec.Name, out.DType)
			}
		}
	}
	if plan.Sizes[graph.Shadow] != plan.Sizes[graph.Params]/2 {
		t.Errorf("regions are %v", plan.Sizes)
	}
}

// TestMixedPrecisionBlocks: a tensor of 2 bytes per element does not reuse the block of one of 4,
// and a rounded state is not used after the state has changed.
func TestMixedPrecisionBlocks(t *testing.T) {
	b := newBuilder()
	b.SetMixed(round.Spec())
	x, s := b.Input("x", graph.Float32, 1, 2, 4), b.State("s", 1, 2, 4)
	slope := b.Apply(square(), x).Output(1)
	b.Result("halves", b.Apply(scale(2), slope))
	b.Result("before", b.Apply(mul(), x, s))
	b.Apply(count(), s, x)
	b.Result("after", b.Apply(mul(), x, s))
	plan := compile(t, b)
	untorn(t, plan)
	rounds := map[graph.Region]int{}
	for _, step := range plan.Steps {
		switch step.Spec.Name {
		case "scale":
			if in, out := step.In[0], step.Out[0]; in.DType != graph.Float32 || out.DType != graph.BFloat16 || in.Offset == out.Offset {
				t.Errorf("scale takes %+v and gives %+v", in, out)
			}
		case "round":
			rounds[step.In[0].Region]++
		}
	}
	if rounds[graph.Inputs] != 1 || rounds[graph.States] != 2 {
		t.Errorf("%v are rounded, want x once and s twice\n%v", rounds, plan)
	}
}
