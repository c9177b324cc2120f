// Package linear_swiglu is an MLP's two products and the gated activation between them and the
// third, for passes that keep nothing for a gradient.
package linear_swiglu

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is silu(x gate^T) * (x up^T), for x [B T K] and weights gate and up [M K]: [B T M].
func Apply(b *graph.Builder, x, gate, up graph.Tensor) graph.Tensor {
	return b.Apply(Spec(), x, gate, up)
}

// Spec is y = silu(x gate^T) * (x up^T) with silu(x) = x sigmoid(x). It has no gradient: training
// keeps what the products make.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_swiglu",
		Signature: "x:mm[B T K], gate:mm[M K], up:mm[M K] -> y[B T M]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			x, gate, up, y := in[0], in[1], in[2], out[0]
			for i := range y.Shape.Rows() {
				for m := range y.Shape.Cols() {
					g, u := 0.0, 0.0
					for k, v := range x.Row(i) {
						g += v * gate.Row(m)[k]
						u += v * up.Row(m)[k]
					}
					y.Row(i)[m] = g / (1 + math.Exp(-g)) * u
				}
			}
		},
		CPU:       forward,
		Workspace: workspace,
		CUDA:      &graph.CUDA{Source: source, Launches: launches, Workspace: cudaWorkspace},
		Cost: func(d graph.Dims) graph.Cost {
			n, m, k := float64(d["B"]*d["T"]), float64(d["M"]), float64(d["K"])
			return graph.Cost{FLOPs: 4*n*m*k + (4+graph.ExpFLOPs)*n*m, Products: 4 * n * m * k, Bytes: 4 * (n*k + 2*m*k + n*m)}
		},
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "M": 8, "K": 16}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "M": 19, "K": 37}},
		{Name: "one token", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 1, "M": 33, "K": 70}},
		{Name: "tiles", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 256, "M": 256, "K": 512}},
		{Name: "parts of tiles", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 700, "M": 168, "K": 616}},
		{Name: "1.7b", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "M": 8196, "K": 2048}, Bench: true},
	}
}
