// Package cast_weights rounds all parameters to bfloat16, for mixed precision.
package cast_weights

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply writes the parameters p [2M] to shadow [M] in bfloat16: the whole region Shadow from the
// whole region Params, in the same order. It is needed after parameters are loaded or initialized;
// after that adamw.ApplyMixed keeps shadow up to date.
func Apply(b *graph.Builder, shadow, p graph.Tensor) { b.Apply(Spec(), shadow, p) }

// Spec is shadow[i] = the bits of p[2i] and, in the upper half, of p[2i+1], each rounded to
// bfloat16, to nearest even. Regions are measured in units of 4 bytes, so an element of shadow
// holds two weights.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "cast_weights",
		Signature: "shadow:f32![M], p:f32[2*M] ->",
		Reference: func(_ graph.Dims, in, _ []graph.Array) {
			shadow, p := in[0].Data, in[1].Data
			for i := range shadow {
				shadow[i] = float64(pair(float32(p[2*i]), float32(p[2*i+1])))
			}
		},
		CPU:  cpu,
		CUDA: &graph.CUDA{Source: source, Launches: launches},
		Cost: func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 12 * float64(d["M"])} },
	}
}

// pair packs two numbers as bfloat16 into the bits of one float32, the first in the lower half.
func pair(low, high float32) float32 {
	return math.Float32frombits(bfloat16(low) | bfloat16(high)<<16)
}

func bfloat16(x float32) uint32 {
	if x != x {
		return 0x7fff
	}
	b := math.Float32bits(x)
	return (b + 0x7fff + b>>16&1) >> 16
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "two weights", Spec: Spec(), Dims: graph.Dims{"M": 1}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"M": 37}},
		{Name: "many blocks", Spec: Spec(), Dims: graph.Dims{"M": 2*block + 16}},
		{Name: "16m", Spec: Spec(), Dims: graph.Dims{"M": 8 << 20}, Bench: true},
	}
}
