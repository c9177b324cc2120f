// Package argmax finds the most likely token: greedy decoding on the device.
package argmax

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply finds the largest of the first n logits of each row of scores [B 1 V] and writes its index
// to the state token [B 1] (int32): the lowest index if several are equal, and 0 if all are NaN.
func Apply(b *graph.Builder, scores, token graph.Tensor, n int) {
	b.Apply(Spec(n), scores, token)
}

// Spec is token[b] = argmax over v < n of scores[b,v].
func Spec(n int) *graph.Spec {
	return &graph.Spec{
		Name:      "argmax",
		Signature: "scores:f32[B 1 V], token:i32![B 1] ->",
		Dims:      graph.Dims{"N": n},
		Derive: func(d graph.Dims) error {
			if n < 1 || n > d["V"] {
				return fmt.Errorf("the highest of %d scores of %d", n, d["V"])
			}
			return nil
		},
		Reference: func(_ graph.Dims, in, _ []graph.Array) {
			for b := range in[0].Shape.Rows() {
				row, best := in[0].Row(b)[:n], 0
				for v, x := range row {
					if x > row[best] {
						best = v
					}
				}
				in[1].Data[b] = float64(best)
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: launches, Workspace: workspace},
		Cost: func(d graph.Dims) graph.Cost {
			scores := float64(d["B"] * n)
			return graph.Cost{FLOPs: scores, Bytes: 4 * scores}
		},
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	equal := map[string]graph.Fill{"scores": graph.Integers(-2, 3)}
	negative := map[string]graph.Fill{"scores": graph.Uniform(-9, -8)}
	return []graph.Case{
		{Name: "small", Spec: Spec(16), Dims: graph.Dims{"B": 2, "V": 16}},
		{Name: "odd", Spec: Spec(11), Dims: graph.Dims{"B": 3, "V": 13}, Fill: negative},
		{Name: "one score", Spec: Spec(1), Dims: graph.Dims{"B": 1, "V": 4}},
		{Name: "equal scores", Spec: Spec(300), Dims: graph.Dims{"B": 5, "V": 300}, Fill: equal},
		{Name: "parts of a GPU", Spec: Spec(2*part + 77), Dims: graph.Dims{"B": 17, "V": 2*part + 80}},
		{Name: "parts of a GPU, equal scores", Spec: Spec(3 * part), Dims: graph.Dims{"B": 2, "V": 3 * part}, Fill: equal},
		{Name: "1.7b", Spec: Spec(50295), Dims: graph.Dims{"B": 16, "V": 50304}, Bench: true},
	}
}
