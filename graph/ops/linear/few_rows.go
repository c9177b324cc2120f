package linear

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// normedSpec is y = h w^T of h = x / sqrt(mean(x^2) + eps) * gain: a sublayer's first product, with
// the norm before it.
func normedSpec(n graph.Norm) *graph.Spec {
	return &graph.Spec{
		Name:      "linear_normed",
		Signature: "x[B T K], gain:f32[K], w:mm[M K] -> y[B T M]",
		Takes:     fewRowsTake,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			Spec().Reference(d, []graph.Array{normed(n, in[0], in[1]), in[2]}, out)
		},
		CPU:  normedForward(n),
		CUDA: normedCUDA(n, false),
		Workspace: func(d graph.Dims, workers int) int {
			return d["B"]*d["T"]*d["K"] + forwardWorkspace(d, workers)
		},
		Gated:     func() *graph.Spec { return gatedSpec(n) },
		Convolved: func(conv *graph.Spec) *graph.Spec { return convolvedSpec(n, conv) },
		Cost: func(d graph.Dims) graph.Cost {
			c := cost(d)
			c.FLOPs += 4 * float64(d["B"]*d["T"]*d["K"])
			return c
		},
	}
}

// normedPreciseSpec is normedSpec with y in float32 in any precision.
func normedPreciseSpec(n graph.Norm) *graph.Spec {
	s := normedSpec(n)
	s.Name, s.Signature = "linear_normed_precise", "x[B T K], gain:f32[K], w:mm[M K] -> y:f32[B T M]"
	s.Gated, s.Convolved = nil, nil
	return s
}

// gatedSpec is y = silu(a) b of the halves [a b] of normedSpec's result: an MLP's gate and up, with
// the activation.
func gatedSpec(n graph.Norm) *graph.Spec {
	both := normedSpec(n)
	return &graph.Spec{
		Name:      "linear_normed_gated",
		Signature: "x[B T K], gain:f32[K], w:mm[2*F K] -> y[B T F]",
		Takes:     fewRowsTake,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			y := out[0]
			ab := graph.NewArray(graph.Shape{d["B"], d["T"], 2 * d["F"]})
			both.Reference(d, in, []graph.Array{ab})
			for i := range y.Shape.Rows() {
				for j := range y.Row(i) {
					a := ab.Row(i)[j]
					y.Row(i)[j] = a / (1 + math.Exp(-a)) * ab.Row(i)[d["F"]+j]
				}
			}
		},
		CPU:  gatedForward(n),
		CUDA: normedCUDA(n, true),
		Workspace: func(d graph.Dims, workers int) int {
			return d["B"]*d["T"]*(d["K"]+2*d["F"]) + forwardWorkspace(bothDims(d), workers)
		},
		Cost: func(d graph.Dims) graph.Cost {
			rows := float64(d["B"] * d["T"])
			c := both.Cost(bothDims(d))
			c.FLOPs += rows * float64(d["F"]) * (4 + graph.ExpFLOPs)
			c.Bytes -= 4 * rows * float64(d["F"])
			return c
		},
	}
}

// bothDims are the sizes of the product of gate and up together.
func bothDims(d graph.Dims) graph.Dims {
	return graph.Dims{"B": d["B"], "T": d["T"], "K": d["K"], "M": 2 * d["F"]}
}

func normed(n graph.Norm, x, gain graph.Array) graph.Array {
	h := graph.NewArray(x.Shape)
	for i := range x.Shape.Rows() {
		sum := 0.0
		for _, v := range x.Row(i) {
			sum += v * v
		}
		r := 1 / math.Sqrt(sum/float64(x.Shape.Cols())+n.Epsilon)
		for j, v := range x.Row(i) {
			h.Row(i)[j] = v * r * gain.Data[j]
		}
	}
	return h
}

func normedForward(n graph.Norm) func(c *graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		return normedProduct(n, c, c.Out[0].F32, c.Out[0].Stride, c.Workspace)
	}
}

// normedProduct binds a call's norm and product, with the result in y.
func normedProduct(n graph.Norm, c *graph.CPUCall, y []float32, stride int, workspace []float32) func() {
	x, gain, w := c.In[0], c.In[1].F32, c.In[2]
	k := x.Cols
	h := workspace[:x.Rows*k]
	g := simd.Gemm{M: x.Rows, N: w.Rows, K: k, TransB: true, LDA: k, LDB: w.Stride, LDC: stride, RoundFactors: c.RoundFactors}
	product := g.Bind(c.Pool, h, w.F32, y, workspace[len(h):])
	task := func(r, _ int) { simd.RMSNormRow(h[r*k:(r+1)*k], x.Row(r), gain, float32(n.Epsilon)) }
	return func() {
		c.Pool.Run(x.Rows, task)
		product()
	}
}

func gatedForward(n graph.Norm) func(c *graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		y := c.Out[0]
		f := y.Cols
		ab := c.Workspace[:y.Rows*2*f]
		product := normedProduct(n, c, ab, 2*f, c.Workspace[len(ab):])
		task := func(r, _ int) {
			row := ab[r*2*f:]
			simd.SwiGLU(y.Row(r), row[:f], row[f:2*f])
		}
		return func() {
			product()
			c.Pool.Run(y.Rows, task)
		}
	}
}

// fewRowsCases are the cases of the ops that only plans of few rows have, and of the kernels for
// them.
func fewRowsCases() []graph.Case {
	n := graph.Norm{Epsilon: 1e-5}
	list := []graph.Case{
		{Name: "one row, 4 apart", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 37, "K": 1028}},
		{Name: "one row, long", Spec: addSpec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 61, "K": 8196}},
		{Name: "one row, many columns", Spec: normedSpec(n), Dims: graph.Dims{"B": 1, "T": 1, "M": 9001, "K": 64}},
		{Name: "one row, many columns", Spec: gatedSpec(n), Dims: graph.Dims{"B": 1, "T": 1, "F": 5003, "K": 64}},
		{Name: "one row, many columns, 4 apart", Spec: addSpec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 9001, "K": 68}},
		{Name: "one row, longest", Spec: addSpec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 19, "K": 20004}},
		{Name: "five rows, long", Spec: addSpec(), Dims: graph.Dims{"B": 5, "T": 1, "M": 61, "K": 8196}},
		{Name: "seven rows, long", Spec: normedSpec(n), Dims: graph.Dims{"B": 7, "T": 1, "M": 53, "K": 4104}},
		{Name: "seven rows, long", Spec: gatedSpec(n), Dims: graph.Dims{"B": 7, "T": 1, "F": 53, "K": 4104}},
		{Name: "16 rows", Spec: addSpec(), Dims: graph.Dims{"B": 16, "T": 1, "M": 40, "K": 1032}},
		{Name: "1.7b out_proj", Spec: addSpec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 2048, "K": 4096}, Bench: true},
		{Name: "1.7b down_proj", Spec: addSpec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 2048, "K": 8196}, Bench: true},
		{Name: "1.7b q, k and v", Spec: normedSpec(n), Dims: graph.Dims{"B": 1, "T": 1, "M": 2560, "K": 2048}, Bench: true},
		{Name: "1.7b head", Spec: normedPreciseSpec(n), Dims: graph.Dims{"B": 16, "T": 1, "M": 50304, "K": 2048}, Bench: true},
		{Name: "1.7b gate and up", Spec: gatedSpec(n), Dims: graph.Dims{"B": 1, "T": 1, "F": 8196, "K": 2048}, Bench: true},
		{Name: "five rows, rounds", Spec: addSpec(), Dims: graph.Dims{"B": 5, "T": 1, "M": 2601, "K": 2824}},
		{Name: "five rows, rounds", Spec: normedSpec(n), Dims: graph.Dims{"B": 5, "T": 1, "M": 5801, "K": 1416}},
		{Name: "five rows, rounds", Spec: gatedSpec(n), Dims: graph.Dims{"B": 5, "T": 1, "F": 26003, "K": 64}},
		{Name: "16 rows, short", Spec: Spec(), Dims: graph.Dims{"B": 16, "T": 1, "M": 300, "K": 128}},
	}
	for _, rows := range []int{1, 3, 16} {
		name := fmt.Sprintf("%d of few rows", rows)
		list = append(list,
			graph.Case{Name: name, Spec: normedPreciseSpec(n), Dims: graph.Dims{"B": rows, "T": 1, "M": 61, "K": 520}},
			graph.Case{Name: name, Spec: normedSpec(n), Dims: graph.Dims{"B": rows, "T": 1, "M": 53, "K": 520}},
			graph.Case{Name: name, Spec: gatedSpec(n), Dims: graph.Dims{"B": rows, "T": 1, "F": 53, "K": 520}},
			graph.Case{Name: name + ", many columns", Spec: gatedSpec(n), Dims: graph.Dims{"B": rows, "T": 1, "F": 1300, "K": 64}})
	}
	return list
}
