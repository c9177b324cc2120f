package linear_swiglu

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask makes a task long enough to be worth scheduling.
const rowsPerTask = 16

// workspace holds x up^T [B T M], followed by what a product needs.
func workspace(d graph.Dims, workers int) int {
	return heldSize(d["B"]*d["T"], d["M"]) + keptWorkspace(d, workers)
}

func keptWorkspace(d graph.Dims, workers int) int {
	return simd.Gemm{M: d["B"] * d["T"], N: d["M"], K: d["K"], TransB: true}.WorkspaceEither(workers)
}

// backwardWorkspace holds dy [B T M], followed by what a product needs.
func backwardWorkspace(d graph.Dims, workers int) int {
	rows := d["B"] * d["T"]
	return heldSize(rows, d["M"]) + simd.Gemm{M: rows, N: d["M"], K: d["K"]}.WorkspaceEither(workers)
}

// heldSize is the size of a tensor, in whole cache lines.
func heldSize(rows, cols int) int { return (rows*cols + 15) / 16 * 16 }

// hold is a tensor of y's size in the workspace, and the rest of the workspace.
func hold(c *graph.CPUCall, y graph.Buffer) (held graph.Buffer, rest []float32) {
	size := heldSize(y.Rows, y.Cols)
	return graph.Buffer{Rows: y.Rows, Cols: y.Cols, Stride: y.Cols, F32: c.Workspace[:size]}, c.Workspace[size:]
}

func forward(c *graph.CPUCall) func() {
	u, rest := hold(c, c.Out[0])
	return gated(c, c.Out[0], u, rest)
}

func keptForward(c *graph.CPUCall) func() { return gated(c, c.Out[1], c.Out[2], c.Workspace) }

// gated computes y from the products, which it stores in g and u; g may be y.
func gated(c *graph.CPUCall, g, u graph.Buffer, workspace []float32) func() {
	x, y := c.In[0], c.Out[0]
	product := func(w, to graph.Buffer) func() {
		p := simd.Gemm{M: x.Rows, N: w.Rows, K: x.Cols, TransB: true, LDA: x.Stride, LDB: w.Stride, LDC: to.Stride,
			RoundFactors: c.RoundFactors}
		return p.Bind(c.Pool, x.F32, w.F32, to.F32, workspace)
	}
	gateProduct, upProduct := product(c.In[1], g), product(c.In[2], u)
	activate := byRows(c.Pool, y.Rows, func(r int) { simd.SwiGLU(y.Row(r), g.Row(r), u.Row(r)) })
	return func() {
		gateProduct()
		upProduct()
		activate()
	}
}

func backward(c *graph.CPUCall) func() {
	dz, down, g, u, dg, du := c.In[0], c.In[1], c.In[2], c.In[3], c.Out[0], c.Out[1]
	dy, rest := hold(c, dg)
	p := simd.Gemm{M: dz.Rows, N: down.Cols, K: down.Rows, LDA: dz.Stride, LDB: down.Stride, LDC: dy.Stride, RoundFactors: c.RoundFactors}
	product := p.Bind(c.Pool, dz.F32, down.F32, dy.F32, rest)
	activate := byRows(c.Pool, dg.Rows, func(r int) { simd.SwiGLUGrad(dg.Row(r), du.Row(r), g.Row(r), u.Row(r), dy.Row(r)) })
	return func() {
		product()
		activate()
	}
}

// byRows runs f for each of some rows.
func byRows(pool graph.Pool, rows int, f func(row int)) func() {
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, rows); r++ {
			f(r)
		}
	}
	return func() { pool.Run((rows+rowsPerTask-1)/rowsPerTask, task) }
}
