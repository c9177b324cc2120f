// Package gated_head_norm is the output gate of gated linear attention and of retention:
// root-mean-square normalization of each head separately, times silu(gate) (arXiv 2312.06635,
// 2307.08621).
package gated_head_norm

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply normalizes each head of x [B T H*D], scales it by w [D], which the heads share, and
// multiplies by silu(gate), gate [B T H*D]: y [B T H*D].
func Apply(b *graph.Builder, x, gate, w graph.Tensor, eps float64) graph.Tensor {
	return b.Apply(Spec(eps), x, gate, w)
}

// Spec is, in each head, y = x * rstd * w * silu(gate) with
// rstd = 1/sqrt(mean(x^2) + eps). rstd is saved for the backward op.
func Spec(eps float64) *graph.Spec {
	return &graph.Spec{
		Name:      "gated_head_norm",
		Signature: "x[B T H*D], gate[B T H*D], w:f32[D] -> y[B T H*D], rstd:f32[B T H]",
		InPlace:   []int{0},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			x, gate, w, y, rstd := in[0], in[1], in[2], out[0], out[1]
			for r := range x.Shape.Rows() {
				for h := range d["H"] {
					sum := 0.0
					for _, v := range head(x, r, h, d) {
						sum += v * v
					}
					s := 1 / math.Sqrt(sum/float64(d["D"])+eps)
					rstd.Row(r)[h] = s
					for j, v := range head(x, r, h, d) {
						g := head(gate, r, h, d)[j]
						head(y, r, h, d)[j] = v * s * w.Data[j] * g * sigmoid(g)
					}
				}
			}
		},
		CPU:  forward(eps),
		CUDA: &graph.CUDA{Source: source, Launches: forwardCUDA(eps)},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dx := g.Builder().Apply(backwardSpec(), g.In[0], g.In[1], g.In[2], g.Out[1], g.DOut)
			return []graph.Tensor{dx, dx.Output(1), dx.Output(2)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["H"] * d["D"])
			return graph.Cost{FLOPs: (8 + graph.ExpFLOPs) * n, Bytes: 12 * n}
		},
	}
}

// backwardSpec is, in each head, with s = sigmoid(gate) and dn = dy * gate s,
//
//	dx    = rstd * (w*dn - x * rstd^2 * mean(w*dn*x))
//	dgate = dy * x * rstd * w * (s + gate s (1-s))
//	dw    = sum over rows and heads of dn * x * rstd
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name: "gated_head_norm_backward",
		Signature: "x[B T H*D], gate[B T H*D], w:f32[D], rstd:f32[B T H], dy[B T H*D]" +
			" -> dx[B T H*D], dgate[B T H*D], dw:f32[D]",
		InPlace: []int{0, 4},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			x, gate, w, rstd, dy, dx, dgate, dw := in[0], in[1], in[2], in[3], in[4], out[0], out[1], out[2]
			for r := range x.Shape.Rows() {
				for h := range d["H"] {
					inv, dot := rstd.Row(r)[h], 0.0
					dn := make([]float64, d["D"])
					for j, v := range head(x, r, h, d) {
						g, dy := head(gate, r, h, d)[j], head(dy, r, h, d)[j]
						s := sigmoid(g)
						dn[j] = dy * g * s
						head(dgate, r, h, d)[j] = dy * v * inv * w.Data[j] * (s + g*s*(1-s))
						dot += w.Data[j] * dn[j] * v
						dw.Data[j] += dn[j] * v * inv
					}
					for j, v := range head(x, r, h, d) {
						head(dx, r, h, d)[j] = inv * (w.Data[j]*dn[j] - v*inv*inv*dot/float64(d["D"]))
					}
				}
			}
		},
		CPU:       backward,
		CUDA:      &graph.CUDA{Source: source, Launches: backwardCUDA, Workspace: backwardWorkspaceCUDA},
		Workspace: backwardWorkspace,
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["H"] * d["D"])
			return graph.Cost{FLOPs: (21 + graph.ExpFLOPs) * n, Bytes: 20 * n}
		},
	}
}

// head is head h of row r.
func head(a graph.Array, r, h int, d graph.Dims) []float64 {
	return a.Row(r)[h*d["D"] : (h+1)*d["D"]]
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	saturated := map[string]graph.Fill{"gate": graph.Uniform(-120, 120)}
	return []graph.Case{
		{Name: "small", Spec: Spec(1e-5), Dims: graph.Dims{"B": 2, "T": 5, "H": 2, "D": 16}},
		{Name: "odd", Spec: Spec(1e-5), Dims: graph.Dims{"B": 3, "T": 7, "H": 3, "D": 13}},
		{Name: "one head", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 1, "H": 1, "D": 6}},
		{Name: "saturated", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 9, "H": 2, "D": 19}, Fill: saturated},
		{Name: "many blocks", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 3*rowsPerBlock + 1, "H": 2, "D": 5}},
		{Name: "gla 438m", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 4096, "H": 4, "D": 384}, Bench: true},
	}
}
