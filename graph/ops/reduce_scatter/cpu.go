package reduce_scatter

import "github.com/sambatrain/sambatrain/graph"

func cpu(c *graph.CPUCall) func() {
	x, y := c.In[0].F32, c.Out[0].F32
	return func() {
		if &x[0] != &y[0] {
			copy(y, x)
		}
		if c.Comm == nil {
			return
		}
		if err := c.Comm.ReduceScatter(graph.VectorOf(y)); err != nil {
			c.Fail(err)
		}
	}
}
