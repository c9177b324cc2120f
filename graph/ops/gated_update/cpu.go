package gated_update

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask keeps a task long enough to be worth handing out.
const rowsPerTask = 16

func tasks(rows int) int { return (rows + rowsPerTask - 1) / rowsPerTask }

// scratch is a worker's two rows.
func scratch(c *graph.CPUCall, worker, width int) (a, b []float32) {
	both := c.Workspace[2*worker*width:][:2*width]
	return both[:width], both[width:]
}

func forward(c *graph.CPUCall) func() {
	x, gate, h, y := c.In[0], c.In[1], c.In[2], c.Out[0]
	task := func(i, worker int) {
		open, step := scratch(c, worker, y.Cols)
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, y.Rows); r++ {
			x := x.Row(r)
			simd.Sigmoid(open, gate.Row(r))
			simd.SiLU(step, h.Row(r))
			simd.Axpy(-1, x, step)
			simd.Mul(step, step, open)
			simd.Add(y.Row(r), x, step) // y may be any input
		}
	}
	return func() { c.Pool.Run(tasks(y.Rows), task) }
}

func backward(c *graph.CPUCall) func() {
	x, gate, h, dy := c.In[0], c.In[1], c.In[2], c.In[3]
	dx, dgate, dh := c.Out[0], c.Out[1], c.Out[2]
	task := func(i, worker int) {
		closed, open := scratch(c, worker, dx.Cols)
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, dx.Rows); r++ {
			dgate, dh, dy := dgate.Row(r), dh.Row(r), dy.Row(r)
			// 1 - s is sigmoid(-gate): where s is near 1, a difference would lose its digits.
			simd.Sigmoid(open, gate.Row(r))
			simd.Scale(closed, -1, gate.Row(r))
			simd.Sigmoid(closed, closed)

			simd.Mul(open, open, dy)
			simd.SiLU(dgate, h.Row(r))
			simd.Axpy(-1, x.Row(r), dgate)
			simd.Mul(dgate, dgate, open)
			simd.Mul(dgate, dgate, closed)
			simd.SiLUGrad(dh, h.Row(r), open)
			simd.Mul(dx.Row(r), dy, closed) // dx may be any input
		}
	}
	return func() { c.Pool.Run(tasks(dx.Rows), task) }
}
