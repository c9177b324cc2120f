// Package all_gather completes a vector of which each process of a run has a piece.
package all_gather

import "github.com/sambatrain/sambatrain/graph"

// Apply copies piece r of x [N] from each process r to all; there are R equal pieces for R
// processes.
func Apply(b *graph.Builder, x graph.Tensor) { b.Apply(Spec(), x) }

// Spec is x[r N/R, (r+1) N/R) = the contents of this range in process r of R. A single process has
// all of x.
func Spec() *graph.Spec {
	return graph.CollectiveSpec(graph.AllGather, "all_gather", "x:f32![N] ->", func(d graph.Dims) int { return 4 * d["N"] })
}

// PieceSpec is y [R M] = the concatenated x [M] of all R processes.
func PieceSpec(processes int) *graph.Spec {
	return graph.PieceSpec(graph.AllGather, "all_gather_piece", "x:f32[M] -> y:f32[R*M]", processes)
}

// Cases are the op's shapes under test.
func Cases() []graph.Case { return graph.CollectiveCases(Spec(), PieceSpec(1)) }
