package accumulate

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// block is a task's elements: long enough to be worth handing out.
const block = 1 << 16

func add(c *graph.CPUCall) func() {
	return overBlocks(c, func(acc, g []float32) { simd.Add(acc, acc, g) })
}

func assign(c *graph.CPUCall) func() {
	return overBlocks(c, func(acc, g []float32) { copy(acc, g) })
}

func overBlocks(c *graph.CPUCall, f func(acc, g []float32)) func() {
	acc, g := c.In[0].F32, c.In[1].F32
	task := func(i, _ int) {
		lo, hi := i*block, min((i+1)*block, len(acc))
		f(acc[lo:hi], g[lo:hi])
	}
	tasks := (len(acc) + block - 1) / block
	return func() { c.Pool.Run(tasks, task) }
}
