// Package all_reduce sums a vector over the processes of a run.
package all_reduce

import "github.com/sambatrain/sambatrain/graph"

// Spec is y = the sum of all processes' x, the same in all of them, in float32.
// The order of the sum is the library's. A run of one process has its own x.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "all_reduce",
		Signature: "x:f32[N] -> y:f32[N]",
		InPlace:   []int{0},
		Reference: func(_ graph.Dims, in, out []graph.Array) { copy(out[0].Data, in[0].Data) },
		CPU:       cpu,
		CUDA:      &graph.CUDA{Launches: graph.CollectiveLaunch(graph.AllReduce)},
		Cost:      func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 8 * float64(d["N"])} },
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "one element", Spec: Spec(), Dims: graph.Dims{"N": 1}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"N": 37}},
		{Name: "16m", Spec: Spec(), Dims: graph.Dims{"N": 16 << 20}, Bench: true},
	}
}
