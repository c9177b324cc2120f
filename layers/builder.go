package layers

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// Precision is the number format that a model's programs compute in. The zero value is float32.
type Precision struct {
	// Mixed means matrix products in bfloat16, and weights, moments and the residual stream in
	// float32. A CPU keeps everything in float32; it must have been told to round the operands of
	// its products.
	Mixed bool
	// Float32Sublayers is the number of sublayers at the start of the model that are exempt from
	// Mixed: see Model.Float32Sublayers. It is 0 where nothing is rounded.
	Float32Sublayers int
}

// Rounds reports whether programs read the parameter of that name in bfloat16 where it is an
// operand of a product.
func (p Precision) Rounds(parameter string) bool {
	var i int
	if n, _ := fmt.Sscanf(parameter, "model.layers.%d.", &i); n == 1 && i < p.Float32Sublayers {
		return false
	}
	return p.Mixed
}

// NewBuilder returns a builder for models.
func NewBuilder(p Precision) *graph.Builder {
	b := graph.NewBuilder(add.Spec)
	if p.Mixed {
		b.SetMixed(round.Spec())
	}
	b.SetFloat32Blocks(p.Float32Sublayers)
	return b
}
