// Package round converts float32 to bfloat16 in mixed precision: the matrix product's input for a
// tensor that is stored in float32.
package round

import "github.com/sambatrain/sambatrain/graph"

// Spec is y = x in bfloat16, rounded to nearest even. It is the op for graph.Builder.SetMixed; a
// plan in float32 has no use for it, and there it copies.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "round",
		Signature: "x[B T D] -> y:mm[B T D]",
		Reference: func(_ graph.Dims, in, out []graph.Array) { copy(out[0].Data, in[0].Data) },
		CPU:       cpu,
		CUDA:      &graph.CUDA{Source: source, Launches: launches},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{Bytes: 8 * float64(d["B"]*d["T"]*d["D"])}
		},
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "D": 32}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "D": 13}},
		{Name: "one element", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "D": 1}},
		{Name: "many tasks", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": rowsPerTask + 1, "D": 5}},
		{Name: "wide rows", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 2, "D": 4100}},
		{Name: "421m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "D": 1536}, Bench: true},
	}
}
