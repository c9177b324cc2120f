// Package swiglu is the gated activation between an MLP's products (Shazeer,
// arXiv 2002.05202).
package swiglu

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is silu(gate) * up, for gate and up [B T F].
func Apply(b *graph.Builder, gate, up graph.Tensor) graph.Tensor {
	return Products{}.Apply(b, gate, up)
}

// Products are ops that a plan may use instead of products and this op, see graph.Spec; nil for
// none.
type Products struct {
	Made   func(kept bool) *graph.Spec // includes the products that compute gate and up
	Pulled func() *graph.Spec          // includes the product that computes dy, in the backward op
}

// Apply is silu(gate) * up, with these fused ops available.
func (p Products) Apply(b *graph.Builder, gate, up graph.Tensor) graph.Tensor {
	return b.Apply(p.spec(), gate, up)
}

// Spec is y = silu(gate) * up with silu(x) = x sigmoid(x).
func Spec() *graph.Spec { return Products{}.spec() }

func (p Products) spec() *graph.Spec {
	return &graph.Spec{
		Name:      "swiglu",
		Signature: "gate[B T F], up[B T F] -> y[B T F]",
		InPlace:   []int{0, 1},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, g := range in[0].Data {
				out[0].Data[i] = g * sigmoid(g) * in[1].Data[i]
			}
		},
		CPU:   forward,
		CUDA:  &graph.CUDA{Source: source, Launches: cudaForward},
		Gates: true,
		Made:  p.Made,
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dgate := g.Builder().Apply(p.backwardSpec(), g.In[0], g.In[1], g.DOut)
			return []graph.Tensor{dgate, dgate.Output(1)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["F"])
			return graph.Cost{FLOPs: (4 + graph.ExpFLOPs) * n, Bytes: 12 * n}
		},
	}
}

// backwardSpec is, with s = sigmoid(gate),
//
//	dgate = dy * up * (s + gate s (1-s))
//	dup   = dy * gate s
func (p Products) backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "swiglu_backward",
		Signature: "gate[B T F], up[B T F], dy[B T F] -> dgate[B T F], dup[B T F]",
		InPlace:   []int{0, 1, 2},
		Over:      []int{0, 1},
		Again:     againSpec,
		Pulled:    p.Pulled,
		Forward:   "swiglu",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, g := range in[0].Data {
				s, up, dy := sigmoid(g), in[1].Data[i], in[2].Data[i]
				out[0].Data[i] = dy * up * (s + g*s*(1-s))
				out[1].Data[i] = dy * g * s
			}
		},
		CPU:  backward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaBackward},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["F"])
			return graph.Cost{FLOPs: (10 + graph.ExpFLOPs) * n, Bytes: 20 * n}
		},
	}
}

// againSpec is backwardSpec that also returns y.
func againSpec() *graph.Spec {
	s := Products{}.backwardSpec()
	gradient := s.Reference
	s.Name = "swiglu_backward_again"
	s.Signature += ", y[B T F]"
	s.InPlace, s.Over, s.Again = []int{0}, []int{0, 1, 2}, nil
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		gradient(d, in, out)
		Spec().Reference(d, in[:2], out[2:])
	}
	s.CPU, s.Workspace = backwardAgain, func(d graph.Dims, workers int) int { return workers * d["F"] }
	s.CUDA = &graph.CUDA{Source: source, Launches: cudaBackwardAgain}
	s.Cost = func(d graph.Dims) graph.Cost {
		n := float64(d["B"] * d["T"] * d["F"])
		return graph.Cost{FLOPs: (11 + graph.ExpFLOPs) * n, Bytes: 24 * n}
	}
	return s
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	saturated := map[string]graph.Fill{"gate": graph.Uniform(-120, 120)}
	return []graph.Case{
		{Name: "again", Spec: againSpec(), Dims: graph.Dims{"B": 2, "T": 5, "F": 32}},
		{Name: "again, odd", Spec: againSpec(), Dims: graph.Dims{"B": 3, "T": rowsPerTask + 1, "F": 13}},
		{Name: "421m again", Spec: againSpec(), Dims: graph.Dims{"B": 1, "T": 4096, "F": 4096}, Bench: true},
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "F": 32}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "F": 13}},
		{Name: "one channel", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "F": 1}},
		{Name: "saturated", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 9, "F": 37}, Fill: saturated},
		{Name: "many tasks", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 3*rowsPerTask + 1, "F": 5}},
		{Name: "wide", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 2, "F": 2056}},
		{Name: "wide, of fours", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 2, "F": 2052}},
		{Name: "421m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "F": 4096}, Bench: true},
		{Name: "30m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1024, "F": 1536}, Bench: true},
	}
}
