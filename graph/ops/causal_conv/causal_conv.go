// Package causal_conv is Mamba's short depthwise convolution over time and the SiLU after it (arXiv
// 2312.00752, figure 3).
package causal_conv

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply convolves each channel of x [B T C] with its own J taps of w [C 1 J], the layout of a
// depthwise Conv1d's weight in PyTorch, adds bias [C] and applies SiLU: y [B T C]. In the stateful
// form the text continues where the previous call ended.
func Apply(b *graph.Builder, x, w, bias graph.Tensor) graph.Tensor {
	past := w.Shape().Cols() - 1
	if s := x.Shape(); b.Carries() != nil && past > 0 && len(s) == 3 {
		return b.Apply(CarrySpec(), x, w, bias, b.State("tail", s[0], past, s.Cols()))
	}
	return b.ApplyByDocument(Spec(), backwardSpec(), nil, x, w, bias)
}

// Spec is y[t,c] = silu(bias[c] + sum_j w[c,j] * x[t-J+1+j,c]), with zeros before
// the row's first token: tap J-1 multiplies the current one.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "causal_conv",
		Signature: "x[B T C], w:f32[C 1 J], bias:f32[C] -> y[B T C]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			x, y := in[0], out[0]
			for b := range d["B"] {
				for t := range d["T"] {
					for c := range d["C"] {
						v := preActivation(in[1], in[2], c, func(back int) float64 { return at(x, d["T"], b, t-back, c) })
						y.Row(b*d["T"] + t)[c] = v * sigmoid(v)
					}
				}
			}
		},
		CPU:            forward,
		Workspace:      func(d graph.Dims, _ int) int { return d["J"] * d["C"] },
		CUDA:           cudaForward,
		CUDAByDocument: cudaForwardByDocument,
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dx := g.Builder().Apply(backwardSpec(), g.In[0], g.In[1], g.In[2], g.DOut)
			return []graph.Tensor{dx, dx.Output(1), dx.Output(2)}
		},
		Cost: forwardCost,
	}
}

// CarrySpec is Spec for a text that is processed in pieces. tail holds the last P = J-1 tokens of x
// before this piece, oldest first; afterwards it holds those before the next piece. At the start of
// a text it is zero.
func CarrySpec() *graph.Spec {
	return &graph.Spec{
		Name:      "causal_conv_carry",
		Signature: "x[B T C], w:f32[C 1 J], bias:f32[C], tail:f32![B P C] -> y[B T C]",
		Derive: func(d graph.Dims) error {
			if d["P"] != d["J"]-1 {
				return fmt.Errorf("tail holds %d tokens, %d taps want %d", d["P"], d["J"], d["J"]-1)
			}
			return nil
		},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			x, tail, y := in[0], in[3], out[0]
			for b := range d["B"] {
				for c := range d["C"] {
					// text is the channel's input including its past: the piece begins at text[P].
					var text []float64
					for p := range d["P"] {
						text = append(text, at(tail, d["P"], b, p, c))
					}
					for t := range d["T"] {
						text = append(text, at(x, d["T"], b, t, c))
						v := preActivation(in[1], in[2], c, func(back int) float64 { return text[d["P"]+t-back] })
						y.Row(b*d["T"] + t)[c] = v * sigmoid(v)
					}
					for p := range d["P"] {
						tail.Row(b*d["P"] + p)[c] = text[d["T"]+p]
					}
				}
			}
		},
		CPU:       forward,
		Workspace: func(d graph.Dims, _ int) int { return d["J"] * d["C"] },
		CUDA:      cudaCarry,
		Convolves: true,
		Cost: func(d graph.Dims) graph.Cost {
			c := forwardCost(d)
			c.Bytes += 8 * float64(d["B"]*d["P"]*d["C"])
			return c
		},
	}
}

// backwardSpec recomputes the pre-activation v and computes, with g = dy * silu'(v),
//
//	dx[t,c]    = sum_j w[c,j] * g[t+J-1-j,c]
//	dw[c,j]    = sum over rows and t of g[t,c] * x[t-J+1+j,c]
//	dbias[c]   = sum over rows and t of g[t,c]
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "causal_conv_backward",
		Signature: "x[B T C], w:f32[C 1 J], bias:f32[C], dy[B T C] -> dx[B T C], dw:f32[C 1 J], dbias:f32[C]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			x, w, dy, dx, dw, dbias := in[0], in[1], in[3], out[0], out[1], out[2]
			for b := range d["B"] {
				for t := range d["T"] {
					for c := range d["C"] {
						v := preActivation(w, in[2], c, func(back int) float64 { return at(x, d["T"], b, t-back, c) })
						s := sigmoid(v)
						g := at(dy, d["T"], b, t, c) * (s + v*s*(1-s))
						dbias.Data[c] += g
						for j := range d["J"] {
							if from := t - d["J"] + 1 + j; from >= 0 {
								dw.Row(c)[j] += g * at(x, d["T"], b, from, c)
								dx.Row(b*d["T"] + from)[c] += g * w.Row(c)[j]
							}
						}
					}
				}
			}
		},
		CPU:            backward,
		Workspace:      backwardWorkspace,
		CUDA:           cudaBackward,
		CUDAByDocument: cudaBackwardByDocument,
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["C"])
			// The pre-activation, dx and dw take a multiply-add per tap; silu' and dbias take 9
			// operations and an exponential.
			return graph.Cost{FLOPs: n * float64(6*d["J"]+9+graph.ExpFLOPs), Bytes: 12*n + 2*weightBytes(d)}
		},
	}
}

// preActivation is the input of channel c's SiLU. past(back) is the channel's input that many
// tokens ago.
func preActivation(w, bias graph.Array, c int, past func(back int) float64) float64 {
	v, taps := bias.Data[c], w.Row(c)
	for j, tap := range taps {
		v += tap * past(len(taps)-1-j)
	}
	return v
}

// at is element (b, t, c) of a [B T C], zero before the first token.
func at(a graph.Array, tokens, b, t, c int) float64 {
	if t < 0 {
		return 0
	}
	return a.Row(b*tokens + t)[c]
}

func sigmoid(v float64) float64 { return 1 / (1 + math.Exp(-v)) }

func forwardCost(d graph.Dims) graph.Cost {
	n := float64(d["B"] * d["T"] * d["C"])
	// A multiply-add per tap, and 4 operations and an exponential for the bias and the SiLU.
	return graph.Cost{FLOPs: n * float64(2*d["J"]+4+graph.ExpFLOPs), Bytes: 8*n + weightBytes(d)}
}

func weightBytes(d graph.Dims) float64 { return 4 * float64(d["C"]*(d["J"]+1)) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	cases := []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 9, "C": 16, "J": 4}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 11, "C": 37, "J": 3}},
		{Name: "one token", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 1, "C": 5, "J": 4}},
		{Name: "one channel", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 7, "C": 1, "J": 2}},
		{Name: "one tap", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "C": 19, "J": 1}},
		{Name: "more taps than tokens", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 3, "C": 10, "J": 8}},
		{Name: "many slices", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 40, "C": 3*minSlice + 21, "J": 4}},
		{Name: "421m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1024, "C": 3072, "J": 4}, Bench: true},
		{Name: "421m documents", Spec: graph.ByDocument(Spec(), backwardSpec(), nil), Dims: graph.Dims{"B": 1, "T": 1024, "C": 3072, "J": 4}, Bench: true,
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(500)}},
		{Name: "30m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1024, "C": 1024, "J": 4}, Bench: true},
	}
	cases = append(cases, graph.Case{Name: "documents", Spec: graph.ByDocument(Spec(), backwardSpec(), nil),
		Dims: graph.Dims{"B": 2, "T": 19, "C": 37, "J": 4}, Fill: map[string]graph.Fill{"start": graph.DocumentStarts(8)}})
	for _, c := range []graph.Case{
		{Name: "small", Dims: graph.Dims{"B": 2, "T": 9, "C": 16, "J": 4}},
		{Name: "odd", Dims: graph.Dims{"B": 3, "T": 5, "C": 37, "J": 3}},
		{Name: "one token", Dims: graph.Dims{"B": 2, "T": 1, "C": 5, "J": 4}},
		{Name: "more taps than tokens", Dims: graph.Dims{"B": 2, "T": 3, "C": 150, "J": 8}},
		{Name: "421m one token", Dims: graph.Dims{"B": 1, "T": 1, "C": 3072, "J": 4}, Bench: true},
	} {
		c.Spec = CarrySpec()
		c.Dims["P"] = c.Dims["J"] - 1
		cases = append(cases, c)
	}
	return cases
}
