package rms_norm

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerBlock is a task's rows. dw is summed a block at a time, and the blocks
// in order, so that the sum doesn't depend on the number of workers.
const rowsPerBlock = 64

func blocks(rows int) int { return (rows + rowsPerBlock - 1) / rowsPerBlock }

func forward(eps float64) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		x, w, y, rstd := c.In[0], c.In[1].F32, c.Out[0], c.Out[1]
		task := func(i, _ int) {
			for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
				rstd.F32[r/rstd.Cols*rstd.Stride+r%rstd.Cols] = simd.RMSNormRow(y.Row(r), x.Row(r), w, float32(eps))
			}
		}
		return func() { c.Pool.Run(blocks(x.Rows), task) }
	}
}

func backward(c *graph.CPUCall) func() { return backwardTo(c, nil) }

// backwardAdd makes each row of dx beside z's, in whose place it may lie, and adds
// them.
func backwardAdd(c *graph.CPUCall) func() { return backwardTo(c, &c.In[4]) }

func backwardTo(c *graph.CPUCall, z *graph.Buffer) func() {
	x, w, rstd, dy, dx, dw := c.In[0], c.In[1].F32, c.In[2], c.In[3], c.Out[0], c.Out[1].F32
	n, d := blocks(x.Rows), len(dw)
	task := func(i, worker int) {
		part := c.Workspace[i*d : (i+1)*d]
		clear(part)
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
			row := dx.Row(r)
			if z != nil {
				row = c.Workspace[(n+worker)*d : (n+worker+1)*d]
			}
			simd.RMSNormRowGrad(row, part, x.Row(r), w, dy.Row(r), rstd.F32[r/rstd.Cols*rstd.Stride+r%rstd.Cols])
			if z != nil {
				simd.Add(dx.Row(r), row, z.Row(r))
			}
		}
	}
	return func() {
		c.Pool.Run(n, task)
		clear(dw)
		for i := range n {
			simd.Add(dw, dw, c.Workspace[i*d:(i+1)*d])
		}
	}
}
