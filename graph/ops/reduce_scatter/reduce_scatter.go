// Package reduce_scatter sums a vector over the processes of a run and gives each of them a piece
// of the sum.
package reduce_scatter

import "github.com/sambatrain/sambatrain/graph"

// Spec is y[r N/R, (r+1) N/R) = the sum of this range of all R processes' x, in process r, in
// float32. The rest of y is undefined, and R divides N. For a single process y is its x.
func Spec() *graph.Spec {
	s := graph.CollectiveSpec(graph.ReduceScatter, "reduce_scatter", "x:f32[N] -> y:f32[N]", func(d graph.Dims) int { return 8 * d["N"] })
	s.InPlace = []int{0}
	return s
}

// PieceSpec is y [M] = piece r of the sum of all R processes' x [R M], in process r.
func PieceSpec(processes int) *graph.Spec {
	return graph.PieceSpec(graph.ReduceScatter, "reduce_scatter_piece", "x:f32[R*M] -> y:f32[M]", processes)
}

// Cases are the op's shapes under test.
func Cases() []graph.Case { return graph.CollectiveCases(Spec(), PieceSpec(1)) }
