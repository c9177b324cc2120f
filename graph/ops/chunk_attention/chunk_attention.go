// Package chunk_attention is causal softmax attention with one head, within chunks of a fixed
// number of tokens, and with a trained bias for each distance between two tokens (Mega, arXiv
// 2209.10655). Keys and values may have different widths.
package chunk_attention

import "github.com/sambatrain/sambatrain/graph"

// Apply is attention of q [B T D] over k [B T D] and v [B T C], within chunks of W tokens counted
// from the text's start: [B T C]. bias [W] has the biases for the distances 0 to W-1. In the
// builder's stateful form the chunk in which a call ends is kept in the states "key" and "value"
// under the builder's scope, for the next call to continue.
func Apply(b *graph.Builder, q, k, v, bias graph.Tensor) graph.Tensor {
	s, w := q.Shape(), bias.Shape()
	if b.Carries() == nil || len(s) != 3 || len(w) != 1 {
		return b.ApplyByDocument(Spec(), backwardSpec(), savedOutputs, q, k, v, bias)
	}
	key := b.State("key", s[0], w[0], k.Shape().Cols())
	value := b.State("value", s[0], w[0], v.Shape().Cols())
	return b.Apply(CarrySpec(), q, k, v, bias, key, value, b.Position(s[0]))
}

// savedOutputs are the outputs that the backward op reads.
var savedOutputs = []int{0, 1}

// Spec is, for the tokens j <= i of token i's chunk,
//
//	s[i,j] = q[i] k[j] / sqrt(D) + bias[i-j]
//	lse[i] = log(sum_j exp(s[i,j]))
//	o[i]   = sum_j exp(s[i,j] - lse[i]) v[j]
//
// lse is saved for the backward op.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "chunk_attention",
		Signature: "q:mm[B T D], k:mm[B T D], v:mm[B T C], bias:f32[W] -> o[B T C], lse:f32[B T]",
		Reference: reference,
		CPU:       forward,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaForward, Workspace: forwardWorkspaceCUDA},
		Workspace: forwardWorkspace,

		CUDAByDocument: &graph.CUDA{Source: source, Launches: cudaForwardByDocument, Workspace: forwardWorkspaceByDocument},

		Gradient: func(g *graph.Gradient) []graph.Tensor {
			in := append(append([]graph.Tensor{}, g.In...), g.Out[0], g.Out[1], g.DOut)
			dq := g.Builder().Apply(backwardSpec(), in...)
			return []graph.Tensor{dq, dq.Output(1), dq.Output(2), dq.Output(3)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			products := visible(d) * float64(2*(d["D"]+d["C"]))
			return graph.Cost{FLOPs: products + visible(d)*graph.ExpFLOPs, Products: products, Bytes: 8*elements(d) + 4*float64(d["B"]*d["T"])}
		},
	}
}

// backwardSpec is, with P[i,j] = exp(s[i,j] - lse[i]) and delta[i] = do[i] o[i],
//
//	dv[j]    = sum_i P[i,j] do[i]
//	dS[i,j]  = P[i,j] (do[i] v[j] - delta[i])
//	dq[i]    = sum_j dS[i,j] k[j] / sqrt(D)
//	dk[j]    = sum_i dS[i,j] q[i] / sqrt(D)
//	dbias[n] = sum over rows and i of dS[i,i-n]
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name: "chunk_attention_backward",
		Signature: "q:mm[B T D], k:mm[B T D], v:mm[B T C], bias:f32[W], o[B T C], lse:f32[B T], do:mm[B T C]" +
			" -> dq[B T D], dk[B T D], dv[B T C], dbias:f32[W]",
		Reference: backwardReference,
		CPU:       backward,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaBackward, Workspace: backwardWorkspaceCUDA},
		Workspace: backwardWorkspace,

		CUDAByDocument: &graph.CUDA{Source: source, Launches: cudaBackwardByDocument, Workspace: backwardWorkspaceByDocument},

		Cost: func(d graph.Dims) graph.Cost {
			products := visible(d) * float64(2*(3*d["D"]+2*d["C"]))
			return graph.Cost{FLOPs: products + visible(d)*graph.ExpFLOPs, Products: products, Bytes: 16*elements(d) + 4*float64(d["B"]*d["T"])}
		},
	}
}

// CarrySpec is Spec for tokens at positions pos, pos+1, ... of each row's text. The keys and values
// of the current chunk are in key and value, the token at position p in slot p mod W.
func CarrySpec() *graph.Spec {
	return &graph.Spec{
		Name:      "chunk_attention_carry",
		Signature: "q[B T D], k[B T D], v[B T C], bias:f32[W], key![B W D], value![B W C], pos:i32[B] -> o[B T C]",
		Reference: carryReference,
		CPU:       carry,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaCarry, Workspace: carryWorkspaceCUDA},
		Workspace: forwardWorkspace,
		// The position isn't known: the cost is that of a whole chunk.
		Cost: func(d graph.Dims) graph.Cost {
			states := float64(d["B"] * d["W"] * (d["D"] + d["C"]))
			pairs := float64(d["B"] * d["T"] * d["W"])
			products := 2 * float64(d["T"]) * states
			return graph.Cost{FLOPs: products + pairs*graph.ExpFLOPs, Products: products, Bytes: 4*states + 12*elements(d)}
		},
	}
}

// visible is the number of pairs of a query and a key that it sees.
func visible(d graph.Dims) float64 {
	pairs := func(n int) float64 { return float64(n) * float64(n+1) / 2 }
	return float64(d["B"]) * (float64(d["T"]/d["W"])*pairs(d["W"]) + pairs(d["T"]%d["W"]))
}

// elements is half the number of elements of q, k, v and o.
func elements(d graph.Dims) float64 { return float64(d["B"] * d["T"] * (d["D"] + d["C"])) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	at := func(position int) map[string]graph.Fill {
		return map[string]graph.Fill{"pos": graph.Integers(position, position+1)}
	}
	powers := map[string]graph.Fill{"v": graph.Integers(1, 3)}
	return []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 9, "D": 4, "C": 8, "W": 4}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 23, "D": 5, "C": 13, "W": 7}},
		{Name: "chunk beyond T", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 6, "D": 8, "C": 3, "W": 100}},
		{Name: "chunk is T", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 6, "D": 8, "C": 3, "W": 6}},
		// A token that sees only itself has no gradient in q, k and bias. With one channel and
		// powers of two there is no rounding error, which could not be compared with anything.
		{Name: "one token", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 1, "D": 1, "C": 1, "W": 1}, Fill: powers},
		{Name: "self only", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 5, "D": 1, "C": 1, "W": 1}, Fill: powers},
		{Name: "large scores", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 12, "D": 4, "C": 4, "W": 12},
			Fill: map[string]graph.Fill{"q": graph.Uniform(-12, 12), "k": graph.Uniform(-12, 12)}},
		{Name: "blocks", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 2*block + 9, "D": 4, "C": 6, "W": block + 5}},
		{Name: "blocks of a chunk", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": keyStep + block + 3, "D": 3, "C": 4, "W": 1000}},

		{Name: "documents", Spec: graph.ByDocument(Spec(), backwardSpec(), savedOutputs), Dims: graph.Dims{"B": 2, "T": 37, "D": 5, "C": 13, "W": 7},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(17)}},
		{Name: "long documents", Spec: graph.ByDocument(Spec(), backwardSpec(), savedOutputs), Dims: graph.Dims{"B": 1, "T": 1070, "D": 1, "C": 2, "W": 1040},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(1060)}},

		{Name: "start", Spec: CarrySpec(), Dims: graph.Dims{"B": 2, "T": 3, "D": 5, "C": 8, "W": 4}, Fill: at(0)},
		{Name: "decode", Spec: CarrySpec(), Dims: graph.Dims{"B": 2, "T": 1, "D": 4, "C": 6, "W": 6}, Fill: at(1001)},
		{Name: "first of a chunk", Spec: CarrySpec(), Dims: graph.Dims{"B": 1, "T": 1, "D": 4, "C": 6, "W": 6}, Fill: at(12)},
		{Name: "to the end of a chunk", Spec: CarrySpec(), Dims: graph.Dims{"B": 1, "T": 3, "D": 4, "C": 6, "W": 6}, Fill: at(9)},
		{Name: "over chunks", Spec: CarrySpec(), Dims: graph.Dims{"B": 2, "T": 13, "D": 4, "C": 6, "W": 5}, Fill: at(4)},
		{Name: "self only", Spec: CarrySpec(), Dims: graph.Dims{"B": 1, "T": 3, "D": 4, "C": 6, "W": 1}, Fill: at(4)},
		{Name: "blocks", Spec: CarrySpec(), Dims: graph.Dims{"B": 1, "T": block + 9, "D": 4, "C": 6, "W": keyStep + 5}, Fill: at(400)},

		{Name: "texts of their own", Spec: CarrySpec(), Dims: graph.Dims{"B": 4, "T": 3, "D": 4, "C": 6, "W": 5},
			Fill: map[string]graph.Fill{"pos": graph.Integers(0, 12)}},

		{Name: "mega 422m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "D": 128, "C": 1536, "W": 2048}, Bench: true},
		{Name: "mega 422m decode", Spec: CarrySpec(), Dims: graph.Dims{"B": 1, "T": 1, "D": 128, "C": 1536, "W": 2048}, Fill: at(4095), Bench: true},
	}
}
