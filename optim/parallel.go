package optim

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/all_gather"
	"github.com/sambatrain/sambatrain/graph/ops/all_reduce"
	"github.com/sambatrain/sambatrain/graph/ops/reduce_scatter"
	"github.com/sambatrain/sambatrain/graph/ops/round"
	"github.com/sambatrain/sambatrain/graph/ops/zero"
)

// Reduction sums gradients over the processes of a run: all of a bucket, or, for a sharded
// optimizer, the piece that a process updates. bfloat16: they travel in that.
func Reduction(buckets graph.Buckets, sharded, bfloat16 bool) graph.Reduction {
	r := graph.Reduction{Op: all_reduce.Spec(), Buckets: buckets, Round: rounding(bfloat16)}
	if sharded {
		r.Op = reduce_scatter.Spec()
	}
	return r
}

func rounding(bfloat16 bool) *graph.Spec {
	if bfloat16 {
		return round.Spec()
	}
	return nil
}

// The names of what BuildSum takes and gives.
const (
	SumInput  = "share"
	SumResult = "sum"
)

// BuildSum sums n numbers over the processes of a run.
func BuildSum(n int) (*graph.Plan, error) {
	b := graph.NewBuilder(add.Spec)
	b.Result(SumResult, b.Apply(all_reduce.Spec(), b.Input(SumInput, graph.Float32, n)))
	return b.Compile()
}

// Sharding is a plan for one of several processes that have pieces of parameters and
// gradients; like is the training's plan, nil in the making of that. bfloat16: gradients
// travel in that.
func Sharding(processes int, bfloat16 bool, like *graph.Plan) graph.Sharding {
	return graph.Sharding{Processes: processes, Gather: all_gather.PieceSpec(processes), Reduce: reduce_scatter.PieceSpec(processes),
		Clear: zero.Spec(), Round: rounding(bfloat16), Like: like}
}

// Shard is the part of an update that one of several processes does: piece Rank of
// Size equal ones of each bucket (ZeRO stage 1, arXiv 1910.02054). The moments of its
// pieces lie one behind the other, as long as a Size'th of the parameters. The zero
// Shard does it all.
type Shard struct {
	Rank, Size int
	Buckets    graph.Buckets
	// Full: parameters and gradients lie as the moments do, and a process has its pieces
	// of them alone (stage 3).
	Full bool
}

// Moments is the length of each moment's region for n parameters.
func (s Shard) Moments(n int) int {
	if s.Size == 0 {
		return n
	}
	return s.Buckets.Length / s.Size
}

// Parameters is the length of the regions Params and Grads for n parameters in all.
func (s Shard) Parameters(n int) int {
	if s.Full {
		return s.Moments(n)
	}
	return n
}

// Pieces calls f for each of the shard's pieces: where it is among all parameters, where
// in a region that holds pieces alone, and its length.
func (s Shard) Pieces(f func(at, moment, n int)) {
	for from, n := range s.Buckets.All() {
		n /= s.Size
		f(from+s.Rank*n, from/s.Size, n)
	}
}
