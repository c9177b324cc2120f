// Package zero clears the gaps between parameters, so that passes over flat buffers find zeros
// there.
package zero

import "github.com/sambatrain/sambatrain/graph"

// Spec is x[i] = 0, in place.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "zero",
		Signature: "x:f32![N] ->",
		Reference: func(_ graph.Dims, in, _ []graph.Array) { clear(in[0].Data) },
		CPU:       cpu,
		CUDA:      &graph.CUDA{Source: source, Launches: launches},
		Cost:      func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 4 * float64(d["N"])} },
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "one element", Spec: Spec(), Dims: graph.Dims{"N": 1}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"N": 37}},
		{Name: "blocks", Spec: Spec(), Dims: graph.Dims{"N": 3*threads + 1}},
		{Name: "1m", Spec: Spec(), Dims: graph.Dims{"N": 1 << 20}, Bench: true},
	}
}
