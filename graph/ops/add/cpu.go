package add

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerTask makes a task long enough to be worth scheduling.
const rowsPerTask = 64

func cpu(c *graph.CPUCall) func() {
	x, y, z := c.In[0], c.In[1], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, z.Rows); r++ {
			simd.Add(z.Row(r), x.Row(r), y.Row(r))
		}
	}
	tasks := (z.Rows + rowsPerTask - 1) / rowsPerTask
	return func() { c.Pool.Run(tasks, task) }
}
