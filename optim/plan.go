package optim

import (
	"errors"

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

// settings returns the settings of an update with or without weight decay.
func (o AdamW) settings(decays bool) adamw.Settings {
	s := adamw.Settings{Beta1: o.Betas[0], Beta2: o.Betas[1], Eps: o.Eps, MaxNorm: o.GradClip}
	if decays {
		s.WeightDecay = o.WeightDecay
	}
	return s
}

// Build makes the plan of one update of n parameters with the layout of params, from the gradients
// in Grads. With mixed it also writes Shadow, the parameters in bfloat16. A shard has the gradients
// of its pieces; afterwards all parameters are up to date, or with shard.Full its pieces.
func (o AdamW) Build(params []graph.ParamSlot, n int, mixed bool, shard Shard) (*graph.Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Decayed != DecayAll && len(params) == 0 {
		return nil, errors.New("optimizer: no parameters are named, of which some decay")
	}
	b := graph.NewBuilder(add.Spec)
	u := update{AdamW: o, b: b, hyper: b.Input(hyperInput, graph.Float32, adamw.HyperSize), runs: o.runs(params, n)}
	switch {
	case shard.Size == 0:
		u.norm = grad_norm.Apply(b, b.Range(graph.Grads, 0, n))
		b.Result(gradNormResult, u.norm)
		u.piece(0, 0, 0, n, mixed)
	case shard.Full:
		u.norm = grad_norm.ApplyRoot(b, b.Apply(all_reduce.Spec(), grad_norm.ApplySquare(b, b.Range(graph.Grads, 0, shard.Parameters(n)))))
		b.Result(gradNormResult, u.norm)
		if len(u.runs) == 1 {
			u.step(0, 0, shard.Parameters(n), mixed, u.runs[0].decays)
			break
		}
		shard.Pieces(func(at, local, n int) { u.piece(at, local, local, n, mixed) })
	default:
		u.shard(shard, mixed)
	}
	return b.Compile()
}

// update is a plan under construction.
type update struct {
	AdamW
	b     *graph.Builder
	hyper graph.Tensor
	norm  graph.Tensor
	runs  []run
}

// step updates n parameters, at the given offsets in region Params and in the moments' regions.
func (u *update) step(param, moment, n int, mixed, decays bool) {
	b := u.b
	p, g := b.Range(graph.Params, param, n), b.Range(graph.Grads, param, n)
	m, v := b.Range(graph.ExpAvg, moment, n), b.Range(graph.ExpAvgSq, moment, n)
	if mixed {
		adamw.ApplyMixed(b, b.Range(graph.Shadow, param/2, n/2), p, g, m, v, u.norm, u.hyper, u.settings(decays))
	} else {
		adamw.Apply(b, p, g, m, v, u.norm, u.hyper, u.settings(decays))
	}
}

// piece is step for elements [at, at+n) of all parameters, with one step per run.
func (u *update) piece(at, param, moment, n int, mixed bool) {
	within(u.runs, at, n, func(from, n int, decays bool) { u.step(param+from, moment+from, n, mixed, decays) })
}

// shard updates a shard's pieces and sends them while it updates more.
func (u *update) shard(shard Shard, mixed bool) {
	b := u.b
	var square graph.Tensor
	shard.Pieces(func(at, _, n int) {
		if s := grad_norm.ApplySquare(b, b.Range(graph.Grads, at, n)); !square.Valid() {
			square = s
		} else {
			square = b.Add(square, s)
		}
	})
	u.norm = grad_norm.ApplyRoot(b, b.Apply(all_reduce.Spec(), square))
	b.Result(gradNormResult, u.norm)
	var gathered []graph.Tensor
	cast := func(bucket int, p graph.Tensor) {
		if from, n := shard.Buckets.At(bucket); mixed {
			cast_weights.Apply(b, b.Range(graph.Shadow, from/2, n/2), p)
		}
	}
	shard.Pieces(func(at, moment, n int) {
		u.piece(at, at, moment, n, false)
		bucket := len(gathered)
		from, n := shard.Buckets.At(bucket)
		whole := b.Range(graph.Params, from, n)
		all_gather.Apply(b, whole)
		if bucket > 0 {
			cast(bucket-1, gathered[bucket-1]) // while this one is being sent
		}
		gathered = append(gathered, whole)
	})
	cast(len(gathered)-1, gathered[len(gathered)-1])
}
