package grad_norm

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// block is the number of elements of a task. The sum is taken within blocks, and the blocks' sums
// are added in order, so that the result doesn't depend on the number of workers.
const block = 1 << 16

func forward(c *graph.CPUCall) func() {
	norm := c.Out[0].F32
	return sumSquares(c, func(sum float64) { norm[0] = float32(math.Sqrt(sum)) })
}

func square(c *graph.CPUCall) func() {
	square := c.Out[0].F32
	return sumSquares(c, func(sum float64) { square[0] = float32(sum) })
}

func root(c *graph.CPUCall) func() {
	square, norm := c.In[0].F32, c.Out[0].F32
	return func() { norm[0] = float32(math.Sqrt(float64(square[0]))) }
}

func sumSquares(c *graph.CPUCall, then func(sum float64)) func() {
	g := c.In[0].F32
	sums := make([]float64, (len(g)+block-1)/block)
	task := func(i, _ int) {
		sums[i] = simd.SumSquares(g[i*block : min((i+1)*block, len(g))])
	}
	return func() {
		c.Pool.Run(len(sums), task)
		total := 0.0
		for _, s := range sums {
			total += s
		}
		then(total)
	}
}
