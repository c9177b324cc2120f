package gated_head_norm

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerBlock is the number of rows of a task. dw is summed within blocks, and the blocks' sums
// are added in order, so that the result doesn't depend on the number of workers.
const rowsPerBlock = 32

func blocks(rows int) int { return (rows + rowsPerBlock - 1) / rowsPerBlock }

func forward(eps float64) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		x, gate, w, y, rstd := c.In[0], c.In[1], c.In[2].F32, c.Out[0], c.Out[1]
		d := len(w)
		task := func(i, _ int) {
			for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
				x, y, rstd := x.Row(r), y.Row(r), rstd.Row(r)
				for h := range rstd {
					rstd[h] = simd.RMSNormRow(y[h*d:(h+1)*d], x[h*d:(h+1)*d], w, float32(eps))
				}
				simd.SwiGLU(y, gate.Row(r), y)
			}
		}
		return func() { c.Pool.Run(blocks(x.Rows), task) }
	}
}

// backwardWorkspace is a partial dw per block, and a row per worker.
func backwardWorkspace(d graph.Dims, workers int) int {
	return blocks(d["B"]*d["T"])*d["D"] + workers*d["H"]*d["D"]
}

func backward(c *graph.CPUCall) func() {
	x, gate, w, rstd, dy := c.In[0], c.In[1], c.In[2].F32, c.In[3], c.In[4]
	dx, dgate, dw := c.Out[0], c.Out[1], c.Out[2].F32
	n, d := blocks(x.Rows), len(dw)
	parts, rows := c.Workspace[:n*d], c.Workspace[n*d:]
	task := func(i, worker int) {
		part, norm := parts[i*d:(i+1)*d], rows[worker*x.Cols:(worker+1)*x.Cols]
		clear(part)
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
			x, dx, rstd := x.Row(r), dx.Row(r), rstd.Row(r)
			for h, s := range rstd {
				n := norm[h*d : (h+1)*d]
				simd.Mul(n, x[h*d:(h+1)*d], w)
				simd.Scale(n, s, n)
			}
			// norm is overwritten by its gradient.
			simd.SwiGLUGrad(dgate.Row(r), norm, gate.Row(r), norm, dy.Row(r))
			for h, s := range rstd {
				simd.RMSNormRowGrad(dx[h*d:(h+1)*d], part, x[h*d:(h+1)*d], w, norm[h*d:(h+1)*d], s)
			}
		}
	}
	return func() {
		c.Pool.Run(n, task)
		clear(dw)
		for i := range n {
			simd.Add(dw, dw, parts[i*d:(i+1)*d])
		}
	}
}
