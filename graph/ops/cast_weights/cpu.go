package cast_weights

import "github.com/sambatrain/sambatrain/graph"

// block is the number of elements of shadow of a task: enough to be worth scheduling.
const block = 1 << 15

func cpu(c *graph.CPUCall) func() {
	shadow, p := c.In[0].F32, c.In[1].F32
	task := func(i, _ int) {
		for k := i * block; k < min((i+1)*block, len(shadow)); k++ {
			shadow[k] = pair(p[2*k], p[2*k+1])
		}
	}
	tasks := (len(shadow) + block - 1) / block
	return func() { c.Pool.Run(tasks, task) }
}
