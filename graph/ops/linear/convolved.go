package linear

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// convolvedSpec is normedSpec for one token of each row, whose result is [u z], with conv applied
// to u: a Mamba's first product, and the convolution after it.
func convolvedSpec(n graph.Norm, conv *graph.Spec) *graph.Spec {
	product := normedSpec(n)
	return &graph.Spec{
		Name:      "linear_normed_convolved",
		Signature: "x[B T K], gain:f32[K], w:mm[M K], taps:f32[C 1 J], bias:f32[C], tail:f32![B P C] -> y[B T M]",
		Takes:     func(d graph.Dims) bool { return fewRowsTake(d) && d["T"] == 1 },
		Derive: func(d graph.Dims) error {
			if d["C"] > d["M"] {
				return fmt.Errorf("%d channels of %d columns", d["C"], d["M"])
			}
			return conv.Derive(d)
		},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			product.Reference(d, in[:3], out)
			u, v := graph.NewArray(graph.Shape{d["B"], d["T"], d["C"]}), graph.NewArray(graph.Shape{d["B"], d["T"], d["C"]})
			for i := range u.Shape.Rows() {
				copy(u.Row(i), out[0].Row(i))
			}
			conv.Reference(d, []graph.Array{u, in[3], in[4], in[5]}, []graph.Array{v})
			for i := range v.Shape.Rows() {
				copy(out[0].Row(i), v.Row(i))
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			y := c.Out[0]
			uz := graph.Buffer{Rows: y.Rows, Cols: y.Cols, Stride: y.Cols, F32: c.Workspace[:y.Rows*y.Cols]}
			rest := c.Workspace[len(uz.F32):]
			some := conv.Workspace(c.Dims, c.Pool.Workers())
			behind := *c
			behind.In, behind.Out, behind.Workspace = []graph.Buffer{uz, c.In[3], c.In[4], c.In[5]}, []graph.Buffer{y}, rest[:some]
			behind.In[0].Cols, behind.Out[0].Cols = c.Dims["C"], c.Dims["C"]
			first, convolve := normedProduct(n, c, uz.F32, uz.Stride, rest[some:]), conv.CPU(&behind)
			z := func(r, _ int) { copy(y.Row(r)[c.Dims["C"]:], uz.Row(r)[c.Dims["C"]:]) }
			return func() {
				first()
				convolve()
				c.Pool.Run(y.Rows, z)
			}
		},
		Workspace: func(d graph.Dims, workers int) int {
			return d["B"]*d["M"] + conv.Workspace(d, workers) + product.Workspace(d, workers)
		},
		CUDA: &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			p := fewRows{x: c.In[0], gain: c.In[1].Address, w: c.In[2], y: c.Out[0], epsilon: n.Epsilon,
				convolved: convolved{taps: c.In[3].Address, bias: c.In[4].Address, tail: c.In[5].Address, channels: c.Dims["C"], reach: c.Dims["J"]}}
			l, _ := p.launch(c, true)
			return []graph.Launch{l}, nil
		}},
		Cost: func(d graph.Dims) graph.Cost {
			c, behind := product.Cost(d), conv.Cost(d)
			c.FLOPs += behind.FLOPs
			c.Bytes += behind.Bytes - 8*float64(d["B"]*d["C"]) // x and y are the product's own
			return c
		},
	}
}

// convolved is a convolution of a product's first columns; channels is 0 if there is none.
type convolved struct {
	taps, bias, tail uint64
	channels, reach  int // C and J
}

// ConvolvedCases are the cases of a product fused with conv, the op of a convolution in pieces.
func ConvolvedCases(conv *graph.Spec) []graph.Case {
	s := convolvedSpec(graph.Norm{Epsilon: 1e-5}, conv)
	return []graph.Case{
		{Name: "one row", Spec: s, Dims: graph.Dims{"B": 1, "T": 1, "K": 520, "M": 53, "C": 30, "J": 4, "P": 3}},
		{Name: "one row, all columns", Spec: s, Dims: graph.Dims{"B": 1, "T": 1, "K": 64, "M": 1300, "C": 1300, "J": 2, "P": 1}},
		{Name: "three rows", Spec: s, Dims: graph.Dims{"B": 3, "T": 1, "K": 520, "M": 53, "C": 27, "J": 4, "P": 3}},
		{Name: "16 rows", Spec: s, Dims: graph.Dims{"B": 16, "T": 1, "K": 128, "M": 96, "C": 48, "J": 3, "P": 2}},
		{Name: "1.7b in_proj", Spec: s, Dims: graph.Dims{"B": 1, "T": 1, "K": 2048, "M": 8192, "C": 4096, "J": 4, "P": 3}, Bench: true},
	}
}
