// Package last_token selects the last token of each row: all that generation needs of a prompt.
package last_token

import "github.com/sambatrain/sambatrain/graph"

// Apply is the last token of each row of x [B T D]: [B 1 D].
func Apply(b *graph.Builder, x graph.Tensor) graph.Tensor { return b.Apply(Spec(), x) }

// Spec is y[b,0] = x[b,T-1]. It has no gradient: training uses all tokens.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "last_token",
		Signature: "x[B T D] -> y[B 1 D]",
		Promote:   true,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			for b := range d["B"] {
				copy(out[0].Row(b), in[0].Row((b+1)*d["T"]-1))
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: launches},
		Cost: func(d graph.Dims) graph.Cost { return graph.Cost{Bytes: 8 * float64(d["B"]*d["D"])} },
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "D": 16}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "D": 13}},
		{Name: "one token", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 1, "D": 4}},
		{Name: "421m", Spec: Spec(), Dims: graph.Dims{"B": 16, "T": 512, "D": 1536}, Bench: true},
	}
}
