package gated_update

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask makes a task long enough to be worth scheduling.
const rowsPerTask = 16

func tasks(rows int) int { return (rows + rowsPerTask - 1) / rowsPerTask }

func forward(c *graph.CPUCall) func() {
	x, gate, h, y := c.In[0], c.In[1], c.In[2], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, y.Rows); r++ {
			simd.GatedUpdate(y.Row(r), x.Row(r), gate.Row(r), h.Row(r))
		}
	}
	return func() { c.Pool.Run(tasks(y.Rows), task) }
}

func backward(c *graph.CPUCall) func() {
	x, gate, h, dy := c.In[0], c.In[1], c.In[2], c.In[3]
	dx, dgate, dh := c.Out[0], c.Out[1], c.Out[2]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, dx.Rows); r++ {
			simd.GatedUpdateGrad(dx.Row(r), dgate.Row(r), dh.Row(r), x.Row(r), gate.Row(r), h.Row(r), dy.Row(r))
		}
	}
	return func() { c.Pool.Run(tasks(dx.Rows), task) }
}
