package log_gate

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerBlock is the number of rows of a task. dbias is summed within blocks, and the blocks' sums
// are added in order, so that the result doesn't depend on the number of workers.
const rowsPerBlock = 64

func blocks(rows int) int { return (rows + rowsPerBlock - 1) / rowsPerBlock }

func forward(normalizer float64) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		x, bias, g := c.In[0], c.In[1].F32, c.Out[0]
		task := func(i, _ int) {
			for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
				y := g.Row(r)
				negated(y, x.Row(r), bias)
				simd.Softplus(y, y)
				simd.Scale(y, float32(-1/normalizer), y)
			}
		}
		return func() { c.Pool.Run(blocks(x.Rows), task) }
	}
}

func backward(normalizer float64) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		x, bias, dg, dx, dbias := c.In[0], c.In[1].F32, c.In[2], c.Out[0], c.Out[1].F32
		n, width := blocks(x.Rows), len(dbias)
		task := func(i, _ int) {
			part := c.Workspace[i*width : (i+1)*width]
			clear(part)
			for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
				d := dx.Row(r)
				negated(d, x.Row(r), bias)
				simd.Sigmoid(d, d)
				simd.Mul(d, d, dg.Row(r))
				simd.Scale(d, float32(1/normalizer), d)
				simd.Add(part, part, d)
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
}

// negated sets dst = -(x + bias). dst may be x.
func negated(dst, x, bias []float32) {
	simd.Add(dst, x, bias)
	simd.Scale(dst, -1, dst)
}
