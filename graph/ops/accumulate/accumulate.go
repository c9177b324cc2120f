// Package accumulate sums the gradients of micro-batches.
package accumulate

import (
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply adds g [N] to acc [N] in place. first starts a new sum: acc becomes g,
// whatever it held. N is usually all parameters of a model, padding included.
func Apply(b *graph.Builder, acc, g graph.Tensor, first bool) { b.Apply(Spec(first), acc, g) }

// Spec is acc = g for the first micro-batch and acc += g for the others.
func Spec(first bool) *graph.Spec {
	s := &graph.Spec{
		Name:      "accumulate",
		Signature: "acc:f32![N], g:f32[N] ->",
		Reference: func(_ graph.Dims, in, _ []graph.Array) {
			for i, g := range in[1].Data {
				in[0].Data[i] += g
			}
		},
		CPU:  add,
		CUDA: &graph.CUDA{Source: source, Launches: launches(first)},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{FLOPs: float64(d["N"]), Bytes: 12 * float64(d["N"])}
		},
	}
	if first {
		s.Name = "accumulate_first"
		s.Reference = func(_ graph.Dims, in, _ []graph.Array) { copy(in[0].Data, in[1].Data) }
		s.CPU = assign
		s.Cost = func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 8 * float64(d["N"])} }
	}
	return s
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	cases := func(first bool) []graph.Case {
		return []graph.Case{
			{Name: "one element", Spec: Spec(first), Dims: graph.Dims{"N": 1}},
			{Name: "odd", Spec: Spec(first), Dims: graph.Dims{"N": 37}},
			{Name: "many blocks", Spec: Spec(first), Dims: graph.Dims{"N": 2*block + 16}},
			{Name: "16m", Spec: Spec(first), Dims: graph.Dims{"N": 16 << 20}, Bench: true},
		}
	}
	return slices.Concat(cases(true), cases(false))
}
