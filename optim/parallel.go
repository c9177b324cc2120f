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

// Reduction sums gradients over the processes of a run: a whole bucket, or, for a sharded
// optimizer, the piece that a process updates. With bfloat16 they are sent in that format.
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

// The names of BuildSum's input and result.
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

// Sharding is a plan for one of several processes that own pieces of parameters and gradients. like
// is the plan of the training, or nil when making that plan itself. With bfloat16 gradients are
// sent in that format.
func Sharding(processes int, bfloat16 bool, like *graph.Plan) graph.Sharding {
	return graph.Sharding{Processes: processes, Gather: all_gather.PieceSpec(processes), Reduce: reduce_scatter.PieceSpec(processes),
		Clear: zero.Spec(), Round: rounding(bfloat16), Like: like}
}

// Shard is the part of an update that one of several processes does: piece Rank of Size equal
// pieces of each bucket (ZeRO stage 1, arXiv 1910.02054). The moments of its pieces are stored
// contiguously and are 1/Size as long as the parameters. The zero Shard does the whole update.
type Shard struct {
	Rank, Size int
	Buckets    graph.Buckets
	// Full: parameters and gradients are laid out like the moments, and a process holds only its
	// own pieces of them (stage 3).
	Full bool
}

// Moments returns the length of each moment's region for n parameters.
func (s Shard) Moments(n int) int {
	if s.Size == 0 {
		return n
	}
	return s.Buckets.Length / s.Size
}

// Parameters returns the length of the regions Params and Grads for n parameters in all.
func (s Shard) Parameters(n int) int {
	if s.Full {
		return s.Moments(n)
	}
	return n
}

// Pieces calls f for each of the shard's pieces: its position among all parameters, its position in
// a region that holds only pieces, and its length.
func (s Shard) Pieces(f func(at, moment, n int)) {
	for from, n := range s.Buckets.All() {
		n /= s.Size
		f(from+s.Rank*n, from/s.Size, n)
	}
}
