package optim

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/adamw"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/all_gather"
	"github.com/sambatrain/sambatrain/graph/ops/all_reduce"
	"github.com/sambatrain/sambatrain/graph/ops/cast_weights"
	"github.com/sambatrain/sambatrain/graph/ops/grad_norm"
)

// The names of Build's input and result.
const (
	hyperInput     = "hyper"
	gradNormResult = "grad_norm"
)

func (o AdamW) settings() adamw.Settings {
	return adamw.Settings{Beta1: o.Betas[0], Beta2: o.Betas[1], Eps: o.Eps, WeightDecay: o.WeightDecay, MaxNorm: o.GradClip}
}

// Build is one update of n parameters, from the gradients in Grads. mixed also writes
// Shadow, the parameters in bfloat16. A shard's gradients are those of its pieces;
// afterwards all parameters are up to date, or with shard.Full the pieces.
func (o AdamW) Build(n int, mixed bool, shard Shard) (*graph.Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b := graph.NewBuilder(add.Spec)
	hyper := b.Input(hyperInput, graph.Float32, adamw.HyperSize)
	if shard.Size > 0 && !shard.Full {
		o.buildShard(b, hyper, mixed, shard)
		return b.Compile()
	}
	n = shard.Parameters(n)
	grads := b.Whole(graph.Grads, n)
	var norm graph.Tensor
	if shard.Full {
		norm = grad_norm.ApplyRoot(b, b.Apply(all_reduce.Spec(), grad_norm.ApplySquare(b, grads)))
	} else {
		norm = grad_norm.Apply(b, grads)
	}
	b.Result(gradNormResult, norm)
	p, m, v := b.Whole(graph.Params, n), b.Whole(graph.ExpAvg, n), b.Whole(graph.ExpAvgSq, n)
	if mixed {
		adamw.ApplyMixed(b, b.Whole(graph.Shadow, n/2), p, grads, m, v, norm, hyper, o.settings())
	} else {
		adamw.Apply(b, p, grads, m, v, norm, hyper, o.settings())
	}
	return b.Compile()
}

func (o AdamW) buildShard(b *graph.Builder, hyper graph.Tensor, mixed bool, shard Shard) {
	var grads []graph.Tensor
	var square graph.Tensor
	shard.Pieces(func(at, _, n int) {
		g := b.Range(graph.Grads, at, n)
		grads = append(grads, g)
		if s := grad_norm.ApplySquare(b, g); len(grads) == 1 {
			square = s
		} else {
			square = b.Add(square, s)
		}
	})
	norm := grad_norm.ApplyRoot(b, b.Apply(all_reduce.Spec(), square))
	b.Result(gradNormResult, norm)
	var gathered []graph.Tensor
	cast := func(bucket int, p graph.Tensor) {
		if from, n := shard.Buckets.At(bucket); mixed {
			cast_weights.Apply(b, b.Range(graph.Shadow, from/2, n/2), p)
		}
	}
	shard.Pieces(func(at, moment, n int) {
		bucket := len(gathered)
		p, m, v := b.Range(graph.Params, at, n), b.Range(graph.ExpAvg, moment, n), b.Range(graph.ExpAvgSq, moment, n)
		adamw.Apply(b, p, grads[bucket], m, v, norm, hyper, o.settings())
		from, n := shard.Buckets.At(bucket)
		whole := b.Range(graph.Params, from, n)
		all_gather.Apply(b, whole)
		if bucket > 0 {
			cast(bucket-1, gathered[bucket-1]) // while this one is on its way
		}
		gathered = append(gathered, whole)
	})
	cast(len(gathered)-1, gathered[len(gathered)-1])
}
