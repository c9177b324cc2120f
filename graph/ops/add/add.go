// Package add sums two tensors: residual connections, and several gradients of one tensor.
package add

import (
	"github.com/sambatrain/sambatrain/graph"
)

// Spec is z = x + y for tensors of rank 1 to 3.
func Spec(rank int) *graph.Spec {
	dims := [...]string{"", "N", "R N", "B T N"}[rank]
	return &graph.Spec{
		Name:      "add",
		Signature: "x[" + dims + "], y[" + dims + "] -> z[" + dims + "]",
		InPlace:   []int{0, 1},
		Promote:   true,
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i := range out[0].Data {
				out[0].Data[i] = in[0].Data[i] + in[1].Data[i]
			}
		},
		CPU:  cpu,
		CUDA: &graph.CUDA{Source: source, Launches: launches},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.DOut, g.DOut}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(size(d))
			return graph.Cost{FLOPs: n, Bytes: 12 * n}
		},
	}
}

func size(d graph.Dims) int {
	n := 1
	for _, v := range d {
		n *= v
	}
	return n
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "residual", Spec: Spec(3), Dims: graph.Dims{"B": 2, "T": 7, "N": 33}},
		{Name: "weight", Spec: Spec(2), Dims: graph.Dims{"R": 5, "N": 16}},
		{Name: "vector", Spec: Spec(1), Dims: graph.Dims{"N": 1}},
		{Name: "wide", Spec: Spec(3), Dims: graph.Dims{"B": 1, "T": 2, "N": 2056}},
		{Name: "421m", Spec: Spec(3), Dims: graph.Dims{"B": 1, "T": 1024, "N": 1536}, Bench: true},
		{Name: "30m", Spec: Spec(3), Dims: graph.Dims{"B": 1, "T": 1024, "N": 512}, Bench: true},
	}
}
