package optim

import (
	"github.com/sambatrain/sambatrain/graph"
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
// gradients in Grads. mixed also writes Shadow, the parameters in bfloat16.
func (o AdamW) Build(n int, mixed bool) (*graph.Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b := graph.NewBuilder(add.Spec)
	grads := b.Whole(graph.Grads, n)
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
