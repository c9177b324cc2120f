// Package log_gate computes the log decays of gated linear attention (arXiv 2312.06635).
package log_gate

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is logsigmoid(x + bias) / normalizer, for x [B T C] and bias [C]: [B T C], at most 0. A
// normalizer above 1 makes the decay slower: sigmoid(x + bias) to the power of 1/normalizer.
func Apply(b *graph.Builder, x, bias graph.Tensor, normalizer float64) graph.Tensor {
	return b.Apply(Spec(normalizer), x, bias)
}

// Spec is g = -log(1 + exp(-(x + bias))) / normalizer.
func Spec(normalizer float64) *graph.Spec {
	return &graph.Spec{
		Name:      "log_gate",
		Signature: "x[B T C], bias:f32[C] -> g:f32[B T C]",
		Derive:    check(normalizer),
		InPlace:   []int{0},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				z := x + in[1].Data[i%d["C"]]
				out[0].Data[i] = (min(z, 0) - math.Log1p(math.Exp(-math.Abs(z)))) / normalizer
			}
		},
		CPU:  forward(normalizer),
		CUDA: &graph.CUDA{Source: source, Launches: forwardCUDA(normalizer)},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dx := g.Builder().Apply(backwardSpec(normalizer), g.In[0], g.In[1], g.DOut)
			return []graph.Tensor{dx, dx.Output(1)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: (3 + 2*graph.ExpFLOPs) * n, Bytes: 8 * n}
		},
	}
}

// backwardSpec is
//
//	dx    = dg * sigmoid(-(x + bias)) / normalizer
//	dbias = sum over rows of dx
func backwardSpec(normalizer float64) *graph.Spec {
	return &graph.Spec{
		Name:      "log_gate_backward",
		Signature: "x[B T C], bias:f32[C], dg[B T C] -> dx[B T C], dbias:f32[C]",
		Derive:    check(normalizer),
		InPlace:   []int{0},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				c := i % d["C"]
				dx := in[2].Data[i] / (1 + math.Exp(x+in[1].Data[c])) / normalizer
				out[0].Data[i] = dx
				out[1].Data[c] += dx
			}
		},
		CPU:       backward(normalizer),
		CUDA:      &graph.CUDA{Source: source, Launches: backwardCUDA(normalizer), Workspace: backwardWorkspaceCUDA},
		Workspace: func(d graph.Dims, _ int) int { return blocks(d["B"]*d["T"]) * d["C"] },
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: (6 + graph.ExpFLOPs) * n, Bytes: 12 * n}
		},
	}
}

func check(normalizer float64) func(graph.Dims) error {
	return func(graph.Dims) error {
		if !(normalizer > 0) {
			return fmt.Errorf("normalizer is %v; it must be positive", normalizer)
		}
		return nil
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	saturated := map[string]graph.Fill{"x": graph.Uniform(-120, 120)}
	return []graph.Case{
		{Name: "small", Spec: Spec(16), Dims: graph.Dims{"B": 2, "T": 5, "C": 32}},
		{Name: "odd", Spec: Spec(0.7), Dims: graph.Dims{"B": 3, "T": 7, "C": 13}},
		{Name: "one channel", Spec: Spec(1), Dims: graph.Dims{"B": 1, "T": 1, "C": 1}},
		{Name: "saturated", Spec: Spec(16), Dims: graph.Dims{"B": 1, "T": 9, "C": 37}, Fill: saturated},
		{Name: "many blocks", Spec: Spec(16), Dims: graph.Dims{"B": 2, "T": 2*rowsPerBlock + 1, "C": 5}},
		{Name: "gla 438m", Spec: Spec(16), Dims: graph.Dims{"B": 1, "T": 4096, "C": 768}, Bench: true},
	}
}
