// Package all_gather makes a vector whole of which each process of a run has a piece.
package all_gather

import "github.com/sambatrain/sambatrain/graph"

// Apply copies piece r of x [N], of R equal ones, from each process r of R to all.
func Apply(b *graph.Builder, x graph.Tensor) { b.Apply(Spec(), x) }

// Spec is x[r N/R, (r+1) N/R) = what process r of R has there. A run of one process has
// all of x.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "all_gather",
		Signature: "x:f32![N] ->",
		Reference: func(graph.Dims, []graph.Array, []graph.Array) {},
		CPU:       cpu,
		CUDA:      &graph.CUDA{Launches: graph.CollectiveLaunch(graph.AllGather)},
		Cost:      func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 4 * float64(d["N"])} },
	}
}

// PieceSpec is y [R M] = the x [M] of each of R processes, one behind the other.
func PieceSpec(processes int) *graph.Spec {
	return &graph.Spec{
		Name:      "all_gather_piece",
		Signature: "x:f32[M] -> y:f32[R*M]",
		Dims:      graph.Dims{"R": processes},
		Reference: func(_ graph.Dims, in, out []graph.Array) { copy(out[0].Data, in[0].Data) },
		CPU:       cpu,
		CUDA:      &graph.CUDA{Launches: graph.CollectiveLaunch(graph.AllGather)},
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
