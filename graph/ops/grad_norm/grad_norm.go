// Package grad_norm is the norm of the whole gradient, for clipping.
package grad_norm

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is the L2 norm, a scalar, of g [N].
func Apply(b *graph.Builder, g graph.Tensor) graph.Tensor { return b.Apply(Spec(), g) }

// Spec is norm = sqrt(sum of g^2).
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "grad_norm",
		Signature: "g:f32[N] -> norm:f32[]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			sum := 0.0
			for _, g := range in[0].Data {
				sum += g * g
			}
			out[0].Data[0] = math.Sqrt(sum)
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: launchesTo("grad_norm"), Workspace: workspaceCUDA},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{FLOPs: 2 * float64(d["N"]), Bytes: 4 * float64(d["N"])}
		},
	}
}

// ApplySquare is the square of the norm, [1], of a shard g [N], to be summed over shards.
func ApplySquare(b *graph.Builder, g graph.Tensor) graph.Tensor { return b.Apply(SquareSpec(), g) }

// ApplyRoot is the norm, a scalar, from the sum of the shards' squares [1].
func ApplyRoot(b *graph.Builder, square graph.Tensor) graph.Tensor {
	return b.Apply(RootSpec(), square)
}

// SquareSpec is square = sum of g^2.
func SquareSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "grad_norm_square",
		Signature: "g:f32[N] -> square:f32[1]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for _, g := range in[0].Data {
				out[0].Data[0] += g * g
			}
		},
		CPU:  square,
		CUDA: &graph.CUDA{Source: source, Launches: launchesTo("grad_square"), Workspace: workspaceCUDA},
		Cost: Spec().Cost,
	}
}

// RootSpec is norm = sqrt(square).
func RootSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "grad_norm_root",
		Signature: "square:f32[1] -> norm:f32[]",
		Reference: func(_ graph.Dims, in, out []graph.Array) { out[0].Data[0] = math.Sqrt(in[0].Data[0]) },
		CPU:       root,
		CUDA:      &graph.CUDA{Source: source, Launches: launchRoot},
		Cost:      func(graph.Dims) graph.Cost { return graph.Cost{FLOPs: 1, Bytes: 8} },
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "one element", Spec: Spec(), Dims: graph.Dims{"N": 1}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"N": 37}},
		{Name: "many blocks", Spec: Spec(), Dims: graph.Dims{"N": 2*block + 16}},
		{Name: "squares beyond float32", Spec: Spec(), Dims: graph.Dims{"N": 64},
			Fill: map[string]graph.Fill{"g": graph.Uniform(-1e25, 1e25)}},
		{Name: "squares below float32", Spec: Spec(), Dims: graph.Dims{"N": 64},
			Fill: map[string]graph.Fill{"g": graph.Uniform(-1e-30, 1e-30)}},
		{Name: "one element", Spec: SquareSpec(), Dims: graph.Dims{"N": 1}},
		{Name: "odd", Spec: SquareSpec(), Dims: graph.Dims{"N": 37}},
		{Name: "many blocks", Spec: SquareSpec(), Dims: graph.Dims{"N": 2*block + 16}},
		{Name: "root", Spec: RootSpec(), Fill: map[string]graph.Fill{"square": graph.Uniform(0, 9)}},
		{Name: "16m", Spec: Spec(), Dims: graph.Dims{"N": 16 << 20}, Bench: true},
	}
}
