package silu

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask makes a task long enough to be worth scheduling.
const rowsPerTask = 16

func tasks(rows int) int { return (rows + rowsPerTask - 1) / rowsPerTask }

func forward(c *graph.CPUCall) func() {
	x, y := c.In[0], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, y.Rows); r++ {
			simd.SiLU(y.Row(r), x.Row(r))
		}
	}
	return func() { c.Pool.Run(tasks(y.Rows), task) }
}

func backward(c *graph.CPUCall) func() {
	x, dy, dx := c.In[0], c.In[1], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, dx.Rows); r++ {
			simd.SiLUGrad(dx.Row(r), x.Row(r), dy.Row(r))
		}
	}
	return func() { c.Pool.Run(tasks(dx.Rows), task) }
}
