package linear_swiglu

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask keeps a task long enough to be worth handing out.
const rowsPerTask = 16

// workspace holds x up^T [B T M], and behind it what a product wants.
func workspace(d graph.Dims, workers int) int {
	rows := d["B"] * d["T"]
	return upSize(rows, d["M"]) + simd.Gemm{M: rows, N: d["M"], K: d["K"], TransB: true}.WorkspaceEither(workers)
}

// upSize is the room of x up^T, in whole cache lines.
func upSize(rows, cols int) int { return (rows*cols + 15) / 16 * 16 }

func forward(c *graph.CPUCall) func() {
	x, gate, up, y := c.In[0], c.In[1], c.In[2], c.Out[0]
	size := upSize(y.Rows, y.Cols)
	u := graph.Buffer{Rows: y.Rows, Cols: y.Cols, Stride: y.Cols, F32: c.Workspace[:size]}
	product := func(w, to graph.Buffer) func() {
		g := simd.Gemm{M: x.Rows, N: w.Rows, K: x.Cols, TransB: true, LDA: x.Stride, LDB: w.Stride, LDC: to.Stride,
			RoundFactors: c.RoundFactors}
		return g.Bind(c.Pool, x.F32, w.F32, to.F32, c.Workspace[size:])
	}
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, y.Rows); r++ {
			simd.SwiGLU(y.Row(r), y.Row(r), u.Row(r))
		}
	}
	gateProduct, upProduct := product(gate, y), product(up, u)
	return func() {
		gateProduct()
		upProduct()
		c.Pool.Run((y.Rows+rowsPerTask-1)/rowsPerTask, task)
	}
}
