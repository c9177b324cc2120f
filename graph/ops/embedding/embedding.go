// Package embedding looks up the row of a table for each token.
package embedding

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is x [B T D], the rows of w [V D] that tokens [B T] (int32) select. Every token must be in
// [0, V), which the data loader ensures. For any other the CPU kernel panics, and the GPU kernel
// returns a row of NaN.
func Apply(b *graph.Builder, tokens, w graph.Tensor) graph.Tensor {
	return b.Apply(Spec(), tokens, w)
}

// ApplyNext is Apply for one token per row, tokens [B 1]. A token below 0 stands for the row's
// token in next [B 1].
func ApplyNext(b *graph.Builder, tokens, next, w graph.Tensor) graph.Tensor {
	return b.Apply(nextSpec(), tokens, next, w)
}

// Spec is x[b,t] = w[tokens[b,t]].
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "embedding",
		Signature: "tokens:i32[B T], w:f32[V D] -> x:f32[B T D]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			tokens, w, x := in[0], in[1], out[0]
			for i, id := range tokens.Data {
				checkToken(i, int(id), w.Shape.Rows())
				copy(x.Row(i), w.Row(int(id)))
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: forwardCUDA},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dw := g.Builder().Apply(dwSpec(g.In[1].Shape().Rows()), g.In[0], g.DOut)
			return []graph.Tensor{{}, dw}
		},
		Cost: func(d graph.Dims) graph.Cost {
			tokens := float64(d["B"] * d["T"])
			return graph.Cost{Bytes: 4*tokens + 8*tokens*float64(d["D"])}
		},
	}
}

// nextSpec is x[b,0] = w[tokens[b,0]], or w[next[b,0]] if tokens[b,0] < 0.
func nextSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "embedding_next",
		Signature: "tokens:i32[B 1], next:i32[B 1], w:f32[V D] -> x:f32[B 1 D]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			tokens, next, w, x := in[0], in[1], in[2], out[0]
			for i, id := range tokens.Data {
				if id < 0 {
					id = next.Data[i]
				}
				checkToken(i, int(id), w.Shape.Rows())
				copy(x.Row(i), w.Row(int(id)))
			}
		},
		CPU:  forwardNext,
		CUDA: &graph.CUDA{Source: source, Launches: nextCUDA},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{Bytes: 8 * float64(d["B"]) * float64(1+d["D"])}
		},
	}
}

// dwSpec is dw[v] = sum of dx[b,t] over the tokens that are v, in their order. No input's shape
// contains the vocabulary's size.
func dwSpec(vocab int) *graph.Spec {
	return &graph.Spec{
		Name:      "embedding_dw",
		Signature: "tokens:i32[B T], dx[B T D] -> dw:f32[V D]",
		Dims:      graph.Dims{"V": vocab},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			tokens, dx, dw := in[0], in[1], out[0]
			for i, id := range tokens.Data {
				checkToken(i, int(id), dw.Shape.Rows())
				for j, g := range dx.Row(i) {
					dw.Row(int(id))[j] += g
				}
			}
		},
		CPU:   dw,
		CUDA:  &graph.CUDA{Source: source, Launches: dwCUDA, Workspace: dwWorkspaceCUDA},
		Added: func() *graph.Spec { return dwAddSpec(vocab) },
		Cost: func(d graph.Dims) graph.Cost {
			tokens, width := float64(d["B"]*d["T"]), float64(d["D"])
			// dw is written entirely, with the sums of its tokens' rows.
			return graph.Cost{FLOPs: tokens * width, Bytes: 4*tokens + 4*float64(d["V"])*width + 4*tokens*width}
		},
	}
}

// dwAddSpec is dwSpec's dw + z: the gradient of a weight that is shared with the head.
func dwAddSpec(vocab int) *graph.Spec {
	s := dwSpec(vocab)
	sum := s.Reference
	s.Name = "embedding_dw_add"
	s.Signature = "tokens:i32[B T], dx[B T D], z:f32[V D] -> dw:f32[V D]"
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		sum(d, in[:2], out)
		for i, v := range in[2].Data {
			out[0].Data[i] += v
		}
	}
	s.CPU = dwAdd
	plain := s.Cost
	s.Cost = func(d graph.Dims) graph.Cost {
		c, n := plain(d), float64(d["V"]*d["D"])
		c.FLOPs, c.Bytes = c.FLOPs+n, c.Bytes+4*n
		return c
	}
	s.Added = nil
	s.InPlace = []int{2}
	return s
}

func checkToken(i, id, vocab int) {
	if id < 0 || id >= vocab {
		panic(fmt.Sprintf("embedding: token %d of the batch is id %d, outside the vocabulary of %d", i, id, vocab))
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	ids := func(low, high int) map[string]graph.Fill {
		return map[string]graph.Fill{"tokens": graph.Integers(low, high)}
	}
	return []graph.Case{
		{Name: "summed", Spec: dwAddSpec(5), Dims: graph.Dims{"B": 2, "T": 9, "D": 37}, Fill: ids(0, 5)},
		{Name: "summed, few tokens", Spec: dwAddSpec(100), Dims: graph.Dims{"B": 1, "T": 7, "D": 24}, Fill: ids(0, 100)},
		{Name: "summed, long runs", Spec: dwAddSpec(3), Dims: graph.Dims{"B": 1, "T": 700, "D": 8}, Fill: ids(0, 3)},
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "V": 16, "D": 32}, Fill: ids(0, 16)},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "V": 11, "D": 13}, Fill: ids(0, 11)},
		{Name: "one token", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "V": 1, "D": 1}, Fill: ids(0, 1)},
		{Name: "last id, often", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 30, "V": 5, "D": 9}, Fill: ids(4, 5)},
		{Name: "many tasks", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 2*rowsPerTask + 3, "V": rowsPerTask + 1, "D": 2*columnsPerTask + 5},
			Fill: ids(0, rowsPerTask+1)},
		{Name: "ids over many chunks of a GPU", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": sorted + 37, "V": 7, "D": 5}, Fill: ids(1, 6)},
		{Name: "wide", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 3, "V": 4, "D": 2052}, Fill: ids(0, 4)},
		{Name: "all given", Spec: nextSpec(), Dims: graph.Dims{"B": 5, "V": 7, "D": 24},
			Fill: map[string]graph.Fill{"tokens": graph.Integers(0, 7), "next": graph.Integers(0, 7)}},
		{Name: "some given", Spec: nextSpec(), Dims: graph.Dims{"B": 19, "V": 7, "D": 13},
			Fill: map[string]graph.Fill{"tokens": graph.Integers(-4, 7), "next": graph.Integers(0, 7)}},
		{Name: "421m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "V": 32000, "D": 1536}, Fill: ids(0, 32000), Bench: true},
	}
}
