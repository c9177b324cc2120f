package add_bias

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerBlock is the number of rows of a task. dbias is summed within blocks, and the blocks' sums
// are added in order, so that the result doesn't depend on the number of workers.
const rowsPerBlock = 64

func blocks(rows int) int { return (rows + rowsPerBlock - 1) / rowsPerBlock }

func forward(c *graph.CPUCall) func() {
	x, bias, y := c.In[0], c.In[1].F32, c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
			simd.Add(y.Row(r), x.Row(r), bias)
		}
	}
	return func() { c.Pool.Run(blocks(x.Rows), task) }
}

func backward(c *graph.CPUCall) func() {
	dy, dbias := c.In[0], c.Out[0].F32
	n, width := blocks(dy.Rows), len(dbias)
	task := func(i, _ int) {
		part := c.Workspace[i*width : (i+1)*width]
		clear(part)
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, dy.Rows); r++ {
			simd.Add(part, part, dy.Row(r))
		}
	}
	return func() {
		c.Pool.Run(n, task)
		clear(dbias)
		for i := range n {
			simd.Add(dbias, dbias, c.Workspace[i*width:(i+1)*width])
		}
	}
}
