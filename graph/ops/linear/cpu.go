package linear

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// The leading dimensions matter only once the buffers are known; the workspace
// depends on the sizes alone.

func forwardWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["B"] * d["T"], N: d["M"], K: d["K"], TransB: true}.Workspace(workers)
}

func forward(c *graph.CPUCall) func() {
	x, w, y := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: x.Rows, N: w.Rows, K: x.Cols, TransB: true, LDA: x.Stride, LDB: w.Stride, LDC: y.Stride}
	return g.Bind(c.Pool, x.F32, w.F32, y.F32, c.Workspace)
}

func dxWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["B"] * d["T"], N: d["K"], K: d["M"]}.Workspace(workers)
}

func dx(c *graph.CPUCall) func() {
	dy, w, dx := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: dy.Rows, N: w.Cols, K: w.Rows, LDA: dy.Stride, LDB: w.Stride, LDC: dx.Stride}
	return g.Bind(c.Pool, dy.F32, w.F32, dx.F32, c.Workspace)
}

func dwWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["M"], N: d["K"], K: d["B"] * d["T"], TransA: true}.Workspace(workers)
}

func dw(c *graph.CPUCall) func() {
	dy, x, dw := c.In[0], c.In[1], c.Out[0]
	g := simd.Gemm{M: dy.Cols, N: x.Cols, K: x.Rows, TransA: true, LDA: dy.Stride, LDB: x.Stride, LDC: dw.Stride}
	return g.Bind(c.Pool, dy.F32, x.F32, dw.F32, c.Workspace)
}
