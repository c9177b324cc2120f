package linear

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// The leading dimensions matter only once the buffers are known; the workspace depends only on the
// sizes.

func forwardWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["B"] * d["T"], N: d["M"], K: d["K"], TransB: true}.WorkspaceEither(workers)
}

func forward(c *graph.CPUCall) func() {
	x, w, y := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: x.Rows, N: w.Rows, K: x.Cols, TransB: true, LDA: x.Stride, LDB: w.Stride, LDC: y.Stride,
		RoundFactors: c.RoundFactors}
	return g.Bind(c.Pool, x.F32, w.F32, y.F32, c.Workspace)
}

func forwardAdd(c *graph.CPUCall) func() {
	x, w, y := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: x.Rows, N: w.Rows, K: x.Cols, TransB: true, LDA: x.Stride, LDB: w.Stride, LDC: y.Stride, Accumulate: true,
		RoundFactors: c.RoundFactors}
	return from(c, c.In[2], g.Bind(c.Pool, x.F32, w.F32, y.F32, c.Workspace))
}

func dxWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["B"] * d["T"], N: d["K"], K: d["M"]}.WorkspaceEither(workers)
}

func dx(c *graph.CPUCall) func() {
	dy, w, dx := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: dy.Rows, N: w.Cols, K: w.Rows, LDA: dy.Stride, LDB: w.Stride, LDC: dx.Stride,
		RoundFactors: c.RoundFactors}
	return g.Bind(c.Pool, dy.F32, w.F32, dx.F32, c.Workspace)
}

func dxAdd(c *graph.CPUCall) func() {
	dy, w, dx := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: dy.Rows, N: w.Cols, K: w.Rows, LDA: dy.Stride, LDB: w.Stride, LDC: dx.Stride, Accumulate: true,
		RoundFactors: c.RoundFactors}
	return from(c, c.In[2], g.Bind(c.Pool, dy.F32, w.F32, dx.F32, c.Workspace))
}

// from runs a product that adds to output 0, which starts as z. z already is there if the plan
// could arrange it.
func from(c *graph.CPUCall, z graph.Buffer, product func()) func() {
	out := c.Out[0]
	if &z.F32[0] == &out.F32[0] {
		return product
	}
	const rows = 64
	task := func(i, _ int) {
		for r := i * rows; r < min((i+1)*rows, z.Rows); r++ {
			copy(out.Row(r), z.Row(r))
		}
	}
	return func() {
		c.Pool.Run((z.Rows+rows-1)/rows, task)
		product()
	}
}

func dwWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["M"], N: d["K"], K: d["B"] * d["T"], TransA: true}.WorkspaceEither(workers)
}

func dw(c *graph.CPUCall) func() {
	dy, x, dw := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: dy.Cols, N: x.Cols, K: x.Rows, TransA: true, LDA: dy.Stride, LDB: x.Stride, LDC: dw.Stride,
		RoundFactors: c.RoundFactors}
	return g.Bind(c.Pool, dy.F32, x.F32, dw.F32, c.Workspace)
}

func dwAdd(c *graph.CPUCall) func() {
	dy, x, dw := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: dy.Cols, N: x.Cols, K: x.Rows, TransA: true, LDA: dy.Stride, LDB: x.Stride, LDC: dw.Stride, Accumulate: true,
		RoundFactors: c.RoundFactors}
	return from(c, c.In[2], g.Bind(c.Pool, dy.F32, x.F32, dw.F32, c.Workspace))
}
