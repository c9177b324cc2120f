package round

import "github.com/sambatrain/sambatrain/graph"

// rowsPerTask makes a task long enough to be worth scheduling.
const rowsPerTask = 64

func cpu(c *graph.CPUCall) func() {
	x, y := c.In[0], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, y.Rows); r++ {
			copy(y.Row(r), x.Row(r))
		}
	}
	tasks := (y.Rows + rowsPerTask - 1) / rowsPerTask
	return func() { c.Pool.Run(tasks, task) }
}
