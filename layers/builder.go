package layers

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// NewBuilder is a graph for models: in float32, or in mixed precision, with matrix
// products in bfloat16.
func NewBuilder(mixed bool) *graph.Builder {
	b := graph.NewBuilder(add.Spec)
	if mixed {
		b.SetMixed(round.Spec())
	}
	return b
}
