// Package gated_update moves a stream part of the way to a new value, with a gate per channel and
// token: the residual connection of Mega (arXiv 2209.10655).
package gated_update

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply interpolates between x, where the gate is closed, and silu(h), where it is open, by
// sigmoid(gate). All are [B T C].
func Apply(b *graph.Builder, x, gate, h graph.Tensor) graph.Tensor {
	return b.Apply(Spec(), x, gate, h)
}

// Spec is y = x + sigmoid(gate) * (silu(h) - x) with silu(h) = h sigmoid(h).
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "gated_update",
		Signature: "x[B T C], gate[B T C], h[B T C] -> y[B T C]",
		InPlace:   []int{0, 1, 2},
		Promote:   true,
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				h := in[2].Data[i]
				out[0].Data[i] = x + sigmoid(in[1].Data[i])*(h*sigmoid(h)-x)
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaForward},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dx := g.Builder().Apply(backwardSpec(), g.In[0], g.In[1], g.In[2], g.DOut)
			return []graph.Tensor{dx, dx.Output(1), dx.Output(2)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: (8 + 2*graph.ExpFLOPs) * n, Bytes: 16 * n}
		},
	}
}

// backwardSpec is, with s = sigmoid(gate) and r = sigmoid(h),
//
//	dx    = dy * (1 - s)
//	dgate = dy * (h r - x) * s (1 - s)
//	dh    = dy * s * (r + h r (1 - r))
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "gated_update_backward",
		Signature: "x[B T C], gate[B T C], h[B T C], dy[B T C] -> dx[B T C], dgate[B T C], dh[B T C]",
		InPlace:   []int{0, 1, 2, 3},
		Promote:   true,
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				h, dy := in[2].Data[i], in[3].Data[i]
				s, r := sigmoid(in[1].Data[i]), sigmoid(h)
				out[0].Data[i] = dy * (1 - s)
				out[1].Data[i] = dy * (h*r - x) * s * (1 - s)
				out[2].Data[i] = dy * s * (r + h*r*(1-r))
			}
		},
		CPU:  backward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaBackward},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			return graph.Cost{FLOPs: (16 + 2*graph.ExpFLOPs) * n, Bytes: 28 * n}
		},
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	saturated := map[string]graph.Fill{"gate": graph.Uniform(-120, 120), "h": graph.Uniform(-120, 120)}
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "C": 32}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "C": 13}},
		{Name: "one channel", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "C": 1}},
		{Name: "saturated", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 9, "C": 37}, Fill: saturated},
		{Name: "many tasks", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 3*rowsPerTask + 1, "C": 5}},
		{Name: "mega 422m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "C": 1536}, Bench: true},
	}
}
