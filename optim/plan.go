package optim

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/accumulate"
	"github.com/sambatrain/sambatrain/graph/ops/adamw"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/grad_norm"
)

// The names of Build's input and result.
const (
	hyperInput     = "hyper"
	gradNormResult = "grad_norm"
)

// Build is one update of n parameters, the length of the region Params, from the
// gradients in Grads, or from their sum in Accum. mixed also writes Shadow, the
// parameters in bfloat16.
func (o AdamW) Build(n int, accumulated, mixed bool) (*graph.Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	from := graph.Grads
	if accumulated {
		from = graph.Accum
	}
	b := graph.NewBuilder(add.Spec)
	grads := b.Whole(from, n)
	norm := grad_norm.Apply(b, grads)
	b.Result(gradNormResult, norm)
	p, m, v := b.Whole(graph.Params, n), b.Whole(graph.ExpAvg, n), b.Whole(graph.ExpAvgSq, n)
	hyper := b.Input(hyperInput, graph.Float32, adamw.HyperSize)
	s := adamw.Settings{Beta1: o.Betas[0], Beta2: o.Betas[1], Eps: o.Eps, WeightDecay: o.WeightDecay, MaxNorm: o.GradClip}
	if mixed {
		adamw.ApplyMixed(b, b.Whole(graph.Shadow, n/2), p, grads, m, v, norm, hyper, s)
	} else {
		adamw.Apply(b, p, grads, m, v, norm, hyper, s)
	}
	return b.Compile()
}

// buildAccumulate adds Grads to Accum, or starts a new sum there.
func buildAccumulate(n int, first bool) (*graph.Plan, error) {
	b := graph.NewBuilder(add.Spec)
	accumulate.Apply(b, b.Whole(graph.Accum, n), b.Whole(graph.Grads, n), first)
	return b.Compile()
}
