// Package add_bias adds a vector to every token: the bias of a linear layer.
package add_bias

import "github.com/sambatrain/sambatrain/graph"

// Apply is x + bias, for x [B T C] and bias [C].
func Apply(b *graph.Builder, x, bias graph.Tensor) graph.Tensor { return b.Apply(Spec(), x, bias) }

// Spec is y[t,c] = x[t,c] + bias[c].
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "add_bias",
		Signature: "x[B T C], bias:f32[C] -> y[B T C]",
		InPlace:   []int{0},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				out[0].Data[i] = x + in[1].Data[i%d["C"]]
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaForward},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.DOut, g.Builder().Apply(backwardSpec(), g.DOut)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: n, Bytes: 8 * n}
		},
	}
}

// backwardSpec is dbias = sum over rows of dy. The gradient of x is dy itself.
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "add_bias_backward",
		Signature: "dy[B T C] -> dbias:f32[C]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			for i, dy := range in[0].Data {
				out[0].Data[i%d["C"]] += dy
			}
		},
		CPU:       backward,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaBackward, Workspace: backwardWorkspaceCUDA},
		Workspace: func(d graph.Dims, _ int) int { return blocks(d["B"]*d["T"]) * d["C"] },
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: n, Bytes: 4 * n}
		},
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "C": 32}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "C": 13}},
		{Name: "one channel", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "C": 1}},
		{Name: "many blocks", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 2*rowsPerBlock + 1, "C": 5}},
		{Name: "mega 422m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "C": 4736}, Bench: true},
	}
}
