// Package linear_recurrence is linear attention with a decay: each head has a matrix-valued state,
// which decays and to which the outer product of key and value is added with each token. It is what
// gated linear attention (GLA, arXiv 2312.06635) and retention (RetNet, arXiv 2307.08621) have in
// common. It is computed a chunk of tokens at a time by matrix products.
package linear_recurrence

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is the recurrence of queries q and keys k [B T H*Dk] and values v [B T H*Dv] with log
// decays g [B T H*Dk], at most 0, one for each channel of a key and token: [B T H*Dv]. heads is H.
// In the stateful form the text continues where the previous call ended.
func Apply(b *graph.Builder, q, k, v, g graph.Tensor, heads int) graph.Tensor {
	if b.Carries() != nil && len(q.Shape()) == 3 && len(v.Shape()) == 3 && heads > 0 {
		return b.Apply(CarrySpec(heads), q, k, v, g, state(b, q, v, heads))
	}
	f := &form{heads: heads}
	return b.ApplyByDocument(f.spec(), f.backwardSpec(), nil, q, k, v, g)
}

// ApplyFixed is Apply with one log decay per head, at most 0, that is the same for all channels and
// tokens.
func ApplyFixed(b *graph.Builder, q, k, v graph.Tensor, logDecay []float64) graph.Tensor {
	if heads := len(logDecay); b.Carries() != nil && len(q.Shape()) == 3 && len(v.Shape()) == 3 && heads > 0 {
		return b.Apply(FixedCarrySpec(logDecay), q, k, v, state(b, q, v, heads))
	}
	f := fixedForm(logDecay)
	return b.ApplyByDocument(f.spec(), f.backwardSpec(), nil, q, k, v)
}

func state(b *graph.Builder, q, v graph.Tensor, heads int) graph.Tensor {
	return b.State("state", q.Shape()[0], heads, q.Shape().Cols()/heads, v.Shape().Cols()/heads)
}

// Spec is, in each head, with S[-1] = 0,
//
//	S[t] = diag(exp(g[t])) S[t-1] + k[t] v[t]^T
//	o[t] = S[t]^T q[t] / sqrt(Dk)
//
// Nothing is saved: the backward op recomputes the states.
func Spec(heads int) *graph.Spec { return (&form{heads: heads}).spec() }

// FixedSpec is Spec with g[t] = logDecay[h] in all channels of head h.
func FixedSpec(logDecay []float64) *graph.Spec { return fixedForm(logDecay).spec() }

// CarrySpec is Spec for a text that is processed in pieces: state holds S before this piece, and
// afterwards S before the next one. At the start of a text it is zero.
func CarrySpec(heads int) *graph.Spec { return (&form{heads: heads}).carrySpec() }

// FixedCarrySpec is CarrySpec with g[t] = logDecay[h] in all channels of head h.
func FixedCarrySpec(logDecay []float64) *graph.Spec { return fixedForm(logDecay).carrySpec() }

// form is an op's attributes.
type form struct {
	heads int
	// logDecay is one number per head, nil if decays are an input.
	logDecay []float64
}

func fixedForm(logDecay []float64) *form { return &form{len(logDecay), logDecay} }

func (f *form) fixed() bool { return f.logDecay != nil }

func (f *form) name(part string) string {
	if f.fixed() {
		return "linear_recurrence_fixed" + part
	}
	return "linear_recurrence" + part
}

func (f *form) inputs() string {
	s := "q:mm[B T H*Dk], k:mm[B T H*Dk], v:mm[B T H*Dv]"
	if !f.fixed() {
		s += ", g:f32[B T H*Dk]"
	}
	return s
}

func (f *form) spec() *graph.Spec {
	return &graph.Spec{
		Name:      f.name(""),
		Signature: f.inputs() + " -> o[B T H*Dv]",
		Dims:      graph.Dims{"H": f.heads},
		Derive:    f.check,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			f.forwardReference(d, in, graph.NewArray(graph.Shape{d["B"], d["H"], d["Dk"], d["Dv"]}), out[0])
		},
		CPU:  f.forward,
		CUDA: f.cudaForward(whole),

		CUDAByDocument: f.cudaForward(byDocument),

		Workspace: forwardWorkspace,
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			in := append(append([]graph.Tensor{}, g.In...), g.DOut)
			grads := []graph.Tensor{g.Builder().Apply(f.backwardSpec(), in...)}
			for i := 1; i < len(g.In); i++ {
				grads = append(grads, grads[0].Output(i))
			}
			return grads
		},
		Cost: f.forwardCost,
	}
}

func (f *form) carrySpec() *graph.Spec {
	return &graph.Spec{
		Name:      f.name("_carry"),
		Signature: f.inputs() + ", state:f32![B H Dk Dv] -> o[B T H*Dv]",
		Dims:      graph.Dims{"H": f.heads},
		Derive:    f.check,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			f.forwardReference(d, in, in[len(in)-1], out[0])
		},
		CPU:       f.forwardCarry,
		CUDA:      f.cudaForward(carry),
		Workspace: forwardWorkspace,
		Cost: func(d graph.Dims) graph.Cost {
			c := f.forwardCost(d)
			c.Bytes += 8 * float64(d["B"]*d["H"]*d["Dk"]*d["Dv"])
			return c
		},
	}
}

// backwardSpec is, with scale = 1/sqrt(Dk) and dS[T] = 0,
//
//	dS[t] = scale q[t] do[t]^T + diag(exp(g[t+1])) dS[t+1]
//	dq[t] = scale S[t] do[t]         dk[t] = dS[t] v[t]
//	dv[t] = dS[t]^T k[t]             dg[t] = exp(g[t]) * rowsum(dS[t] * S[t-1])
func (f *form) backwardSpec() *graph.Spec {
	out := " -> dq[B T H*Dk], dk[B T H*Dk], dv[B T H*Dv]"
	if !f.fixed() {
		out += ", dg[B T H*Dk]"
	}
	return &graph.Spec{
		Name:      f.name("_backward"),
		Signature: f.inputs() + ", do:mm[B T H*Dv]" + out,
		Dims:      graph.Dims{"H": f.heads},
		Derive:    f.check,
		Reference: f.backwardReference,
		CPU:       f.backward,
		CUDA:      f.cudaBackward(whole),

		CUDAByDocument: f.cudaBackward(byDocument),

		Workspace: backwardWorkspace,
		Cost:      f.backwardCost,
	}
}

func (f *form) check(graph.Dims) error {
	if f.heads < 1 {
		return fmt.Errorf("heads is %d; it must be positive", f.heads)
	}
	for h, g := range f.logDecay {
		if !(g <= 0) {
			return fmt.Errorf("the log decay of head %d is %v; it must be at most 0", h, g)
		}
	}
	return nil
}

// forwardCost counts the products with the state, one that reads and one that writes it, and those
// between the tokens of a chunk that see one another.
func (f *form) forwardCost(d graph.Dims) graph.Cost {
	n, dk, dv := float64(d["B"]*d["T"]*d["H"]), float64(d["Dk"]), float64(d["Dv"])
	products := n * (4*dk*dv + visible(d)*2*(dk+dv))
	return graph.Cost{
		FLOPs: products, Products: products,
		Bytes: 4 * n * (f.keyArrays()*dk + 2*dv),
	}
}

// backwardCost counts five products with states or their gradients, and five
// between the tokens of a chunk: the scores, their gradient, dq, dk and dv.
func (f *form) backwardCost(d graph.Dims) graph.Cost {
	n, dk, dv := float64(d["B"]*d["T"]*d["H"]), float64(d["Dk"]), float64(d["Dv"])
	products := n * (10*dk*dv + visible(d)*2*(3*dk+2*dv))
	return graph.Cost{
		FLOPs: products, Products: products,
		Bytes: 4 * n * (2*f.keyArrays()*dk + 3*dv),
	}
}

// keyArrays is the number of inputs that are Dk wide.
func (f *form) keyArrays() float64 {
	if f.fixed() {
		return 2
	}
	return 3
}

// visible is the number of tokens of its chunk, including itself, that a token sees on average in a
// long text.
func visible(d graph.Dims) float64 { return float64(min(chunkTokens, d["T"])+1) / 2 }
