package layers

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// Precision is what a model's programs compute in. The zero value is float32.
type Precision struct {
	// Mixed has matrix products in bfloat16, and weights, moments and the residual stream
	// in float32. A CPU, which must have been told to round the factors of its products,
	// keeps everything in float32.
	Mixed bool
	// Float32Sublayers is how many sublayers, the first ones, are left out of that: see
	// Model.Float32Sublayers. It is 0 where nothing is rounded.
	Float32Sublayers int
}

// Rounds reports whether programs read a parameter of that name in bfloat16, as far as it
// is a factor of products.
func (p Precision) Rounds(parameter string) bool {
	var i int
	if n, _ := fmt.Sscanf(parameter, "model.layers.%d.", &i); n == 1 && i < p.Float32Sublayers {
		return false
	}
	return p.Mixed
}

// NewBuilder is a graph for models.
func NewBuilder(p Precision) *graph.Builder {
	b := graph.NewBuilder(add.Spec)
	if p.Mixed {
		b.SetMixed(round.Spec())
	}
	b.SetFloat32Blocks(p.Float32Sublayers)
	return b
}
