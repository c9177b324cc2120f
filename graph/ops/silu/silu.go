// Package silu is the activation x sigmoid(x) (Elfwing et al., arXiv 1702.03118).
package silu

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is x sigmoid(x), for x [B T C].
func Apply(b *graph.Builder, x graph.Tensor) graph.Tensor { return b.Apply(Spec(), x) }

// Spec is y = x sigmoid(x).
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "silu",
		Signature: "x[B T C] -> y[B T C]",
		InPlace:   []int{0},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				out[0].Data[i] = x * sigmoid(x)
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaForward},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(backwardSpec(), g.In[0], g.DOut)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: (3 + graph.ExpFLOPs) * n, Bytes: 8 * n}
		},
	}
}

// backwardSpec is dx = dy (s + x s (1-s)) with s = sigmoid(x).
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "silu_backward",
		Signature: "x[B T C], dy[B T C] -> dx[B T C]",
		InPlace:   []int{0, 1},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				s := sigmoid(x)
				out[0].Data[i] = in[1].Data[i] * (s + x*s*(1-s))
			}
		},
		CPU:  backward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaBackward},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: (7 + graph.ExpFLOPs) * n, Bytes: 12 * n}
		},
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	saturated := map[string]graph.Fill{"x": graph.Uniform(-120, 120)}
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "C": 32}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "C": 13}},
		{Name: "one channel", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "C": 1}},
		{Name: "saturated", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 9, "C": 37}, Fill: saturated},
		{Name: "many tasks", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 3*rowsPerTask + 1, "C": 5}},
		{Name: "mega 422m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "C": 1536}, Bench: true},
	}
}
