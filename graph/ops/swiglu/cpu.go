package swiglu

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask makes a task long enough to be worth scheduling.
const rowsPerTask = 16

func tasks(rows int) int { return (rows + rowsPerTask - 1) / rowsPerTask }

func forward(c *graph.CPUCall) func() {
	gate, up, y := c.In[0], c.In[1], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, y.Rows); r++ {
			simd.SwiGLU(y.Row(r), gate.Row(r), up.Row(r))
		}
	}
	return func() { c.Pool.Run(tasks(y.Rows), task) }
}

func backward(c *graph.CPUCall) func() {
	gate, up, dy, dgate, dup := c.In[0], c.In[1], c.In[2], c.Out[0], c.Out[1]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, dgate.Rows); r++ {
			simd.SwiGLUGrad(dgate.Row(r), dup.Row(r), gate.Row(r), up.Row(r), dy.Row(r))
		}
	}
	return func() { c.Pool.Run(tasks(dgate.Rows), task) }
}

// backwardAgain computes y in scratch memory first, because y may overwrite dy.
func backwardAgain(c *graph.CPUCall) func() {
	gate, up, dy, dgate, dup, y := c.In[0], c.In[1], c.In[2], c.Out[0], c.Out[1], c.Out[2]
	task := func(i, worker int) {
		product := c.Workspace[worker*y.Cols : (worker+1)*y.Cols]
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, dgate.Rows); r++ {
			simd.SwiGLU(product, gate.Row(r), up.Row(r))
			simd.SwiGLUGrad(dgate.Row(r), dup.Row(r), gate.Row(r), up.Row(r), dy.Row(r))
			copy(y.Row(r), product)
		}
	}
	return func() { c.Pool.Run(tasks(dgate.Rows), task) }
}
