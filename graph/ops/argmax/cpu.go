package argmax

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

func forward(c *graph.CPUCall) func() {
	scores, token, n := c.In[0], c.In[1].I32, c.Dims["N"]
	task := func(row, _ int) { token[row] = int32(simd.ArgMax(scores.Row(row)[:n])) }
	return func() { c.Pool.Run(scores.Rows, task) }
}
