// Package rotary_bias computes attention biases that depend on the distance of two tokens from two
// trained vectors and the rotary position embedding (Mega, arXiv 2209.10655, with arXiv
// 2104.09864).
package rotary_bias

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// base is the base of the rotary embedding.
const base = 10000

// Apply computes a bias [W] for the distances 0 to distances-1, from alpha and beta [1 D]. D must
// be even.
func Apply(b *graph.Builder, alpha, beta graph.Tensor, distances int) graph.Tensor {
	return b.Apply(Spec(distances), alpha, beta)
}

// Spec is bias[n] = (alpha rotated by n) · beta: the product of alpha at position i and beta at
// position j = i-n, for any i. Channel c of D/2 is rotated with channel c + D/2 by w_c =
// 10000^(-2c/D) per position.
func Spec(distances int) *graph.Spec {
	return &graph.Spec{
		Name:      "rotary_bias",
		Signature: "alpha:f32[1 D], beta:f32[1 D] -> bias:f32[W]",
		Dims:      graph.Dims{"W": distances},
		Derive:    checkEven,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			alpha, beta, half := in[0].Data, in[1].Data, d["D"]/2
			for n := range d["W"] {
				for c := range half {
					sin, cos := math.Sincos(float64(n) * frequency(c, half))
					out[0].Data[n] += (alpha[c]*cos - alpha[half+c]*sin) * beta[c]
					out[0].Data[n] += (alpha[half+c]*cos + alpha[c]*sin) * beta[half+c]
				}
			}
		},
		CPU:       forward,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaForward},
		Workspace: func(d graph.Dims, _ int) int { return d["D"] },
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dalpha := g.Builder().Apply(backwardSpec(), g.In[0], g.In[1], g.DOut)
			return []graph.Tensor{dalpha, dalpha.Output(1)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["W"] * d["D"])
			return graph.Cost{FLOPs: 2 * n, Bytes: 4 * float64(2*d["D"]+d["W"])}
		},
	}
}

// backwardSpec is, with R(n) the rotation by n positions,
//
//	dalpha = sum_n dbias[n] R(-n) beta
//	dbeta  = sum_n dbias[n] R(n) alpha
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "rotary_bias_backward",
		Signature: "alpha:f32[1 D], beta:f32[1 D], dbias:f32[W] -> dalpha:f32[1 D], dbeta:f32[1 D]",
		Derive:    checkEven,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			alpha, beta, dalpha, dbeta, half := in[0].Data, in[1].Data, out[0].Data, out[1].Data, d["D"]/2
			for n, dbias := range in[2].Data {
				for c := range half {
					sin, cos := math.Sincos(float64(n) * frequency(c, half))
					dalpha[c] += dbias * (beta[c]*cos + beta[half+c]*sin)
					dalpha[half+c] += dbias * (beta[half+c]*cos - beta[c]*sin)
					dbeta[c] += dbias * (alpha[c]*cos - alpha[half+c]*sin)
					dbeta[half+c] += dbias * (alpha[half+c]*cos + alpha[c]*sin)
				}
			}
		},
		CPU:       backward,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaBackward},
		Workspace: func(d graph.Dims, _ int) int { return d["D"] },
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["W"] * d["D"])
			return graph.Cost{FLOPs: 2 * n, Bytes: 4 * float64(4*d["D"]+d["W"])}
		},
	}
}

func checkEven(d graph.Dims) error {
	if d["D"]%2 != 0 {
		return fmt.Errorf("alpha and beta have %d channels; they turn in pairs, so the number must be even", d["D"])
	}
	return nil
}

// frequency is w_c, in radians per position.
func frequency(c, half int) float64 { return math.Pow(base, -float64(c)/float64(half)) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "small", Spec: Spec(8), Dims: graph.Dims{"D": 16}},
		{Name: "odd", Spec: Spec(37), Dims: graph.Dims{"D": 26}},
		{Name: "two channels", Spec: Spec(5), Dims: graph.Dims{"D": 2}},
		{Name: "far", Spec: Spec(3000), Dims: graph.Dims{"D": 6}},
		// At distance 0 there is no rotation.
		{Name: "one distance", Spec: Spec(1), Dims: graph.Dims{"D": 8}},
		{Name: "mega 422m", Spec: Spec(2048), Dims: graph.Dims{"D": 128}, Bench: true},
	}
}
