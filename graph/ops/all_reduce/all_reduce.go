// Package all_reduce sums a vector over the processes of a run.
package all_reduce

import "github.com/sambatrain/sambatrain/graph"

// Spec is y = the sum of all processes' x, the same in all of them, in float32. The library
// determines the order of the sum. For a single process y is its x.
func Spec() *graph.Spec {
	s := graph.CollectiveSpec(graph.AllReduce, "all_reduce", "x:f32[N] -> y:f32[N]", func(d graph.Dims) int { return 8 * d["N"] })
	s.InPlace = []int{0}
	return s
}

// Cases are the op's shapes under test.
func Cases() []graph.Case { return graph.CollectiveCases(Spec(), nil) }
