// Package reduce_scatter sums a vector over the processes of a run, each of which gets a piece of the sum.
package reduce_scatter

import "github.com/sambatrain/sambatrain/graph"

// Spec is y[r N/R, (r+1) N/R) = the sum of all R processes' x there, in process r, in float32.
// The rest of y is not defined, and R divides N. A run of one process has its own x.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "reduce_scatter",
		Signature: "x:f32[N] -> y:f32[N]",
		InPlace:   []int{0},
		Reference: func(_ graph.Dims, in, out []graph.Array) { copy(out[0].Data, in[0].Data) },
		CPU:       cpu,
		CUDA:      &graph.CUDA{Launches: graph.CollectiveLaunch(graph.ReduceScatter)},
		Cost:      func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 8 * float64(d["N"])} },
	}
}

// PieceSpec is y [M] = piece r of the sum of all R processes' x [R M], in process r.
func PieceSpec(processes int) *graph.Spec {
	return &graph.Spec{
		Name:      "reduce_scatter_piece",
		Signature: "x:f32[R*M] -> y:f32[M]",
		Dims:      graph.Dims{"R": processes},
		Reference: func(_ graph.Dims, in, out []graph.Array) { copy(out[0].Data, in[0].Data) },
		CPU:       cpu,
		CUDA:      &graph.CUDA{Launches: graph.CollectiveLaunch(graph.ReduceScatter)},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{Bytes: 4 * float64(d["R"]*d["M"]+d["M"])}
		},
	}
}

// Cases are the op's shapes under test, in a run of one process.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "one element", Spec: Spec(), Dims: graph.Dims{"N": 1}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"N": 37}},
		{Name: "piece", Spec: PieceSpec(1), Dims: graph.Dims{"M": 37}},
		{Name: "16m", Spec: Spec(), Dims: graph.Dims{"N": 16 << 20}, Bench: true},
	}
}
